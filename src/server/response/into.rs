//! What may be returned in the place of a [`Response`].

use std::borrow::Cow;
use std::io::Read;

use super::Response;

/// What a handler may return.
///
/// ```
/// use plimsoll::{IntoResponse, Response};
///
/// struct Celsius(f64);
///
/// impl IntoResponse for Celsius {
///     fn into_response(self) -> Response {
///         Response::json(format!(r#"{{"celsius":{}}}"#, self.0))
///     }
/// }
///
/// assert_eq!(Celsius(21.5).into_response().status(), 200);
/// // Nothing found is 404, and a status of its own stands before any reply.
/// assert_eq!(None::<Celsius>.into_response().status(), 404);
/// assert_eq!((503, "no thermometer\n").into_response().status(), 503);
/// ```
pub trait IntoResponse {
    /// The reply it stands for.
    fn into_response(self) -> Response;
}

impl IntoResponse for Response {
    fn into_response(self) -> Response {
        self
    }
}

/// 204, without a body.
impl IntoResponse for () {
    fn into_response(self) -> Response {
        Response::empty(204)
    }
}

/// 200, `text/plain`.
impl IntoResponse for &'static str {
    fn into_response(self) -> Response {
        Response::text(200, self)
    }
}

/// 200, `text/plain`.
impl IntoResponse for String {
    fn into_response(self) -> Response {
        Response::text(200, self)
    }
}

/// 200, `text/plain`.
impl IntoResponse for Cow<'static, str> {
    fn into_response(self) -> Response {
        Response::text(200, self)
    }
}

/// 200, `application/octet-stream`.
impl IntoResponse for Cow<'static, [u8]> {
    fn into_response(self) -> Response {
        Response::new(200, self).with_header("Content-Type", "application/octet-stream")
    }
}

/// 200, `application/octet-stream`.
impl IntoResponse for Vec<u8> {
    fn into_response(self) -> Response {
        Cow::from(self).into_response()
    }
}

/// 200, `application/octet-stream`.
impl IntoResponse for &'static [u8] {
    fn into_response(self) -> Response {
        Cow::from(self).into_response()
    }
}

/// 200, `application/octet-stream`.
impl<const N: usize> IntoResponse for &'static [u8; N] {
    fn into_response(self) -> Response {
        self.as_slice().into_response()
    }
}

/// The same reply with another status.
impl<T: IntoResponse> IntoResponse for (u16, T) {
    fn into_response(self) -> Response {
        self.1.into_response().with_status(self.0)
    }
}

/// `None` is 404.
impl<T: IntoResponse> IntoResponse for Option<T> {
    fn into_response(self) -> Response {
        self.map_or_else(
            || Response::text(404, "not found\n"),
            IntoResponse::into_response,
        )
    }
}

/// Either reply; give the error a status of its own with `(u16, T)`.
impl<T: IntoResponse, E: IntoResponse> IntoResponse for Result<T, E> {
    fn into_response(self) -> Response {
        match self {
            Ok(value) => value.into_response(),
            Err(error) => error.into_response(),
        }
    }
}

/// A reply made with `tiny_http`: its status, headers, length and reader.
impl<R: Read + Send + 'static> IntoResponse for tiny_http::Response<R> {
    fn into_response(self) -> Response {
        let status = self.status_code().0;
        let length = self.data_length().map(|length| length as u64);
        let headers: Vec<_> = self
            .headers()
            .iter()
            .map(|header| (header.field.to_string(), header.value.to_string()))
            .collect();
        let response = Response::reader(status, self.into_reader(), length);
        headers
            .into_iter()
            .fold(response, |response, (name, value)| {
                response.with_added_header(name, value)
            })
    }
}
