//! What answers requests.

use std::sync::Arc;

use crate::server::request::Request;
use crate::server::response::{IntoResponse, Response};

/// Answers requests: blocking, straight-line code that a fixed pool of threads runs, several at a time.
///
/// It is implemented for every closure from `&mut Request` to something that [is a reply](IntoResponse), and for boxed
/// and shared handlers. A panic is answered 500; the worker lives.
///
/// ```
/// use plimsoll::{Handler, Request, Response};
///
/// struct Greeter {
///     greeting: String,
/// }
///
/// impl Handler for Greeter {
///     fn handle(&self, request: &mut Request) -> Response {
///         Response::text(200, format!("{} {}\n", self.greeting, request.path()))
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(&self, request: &mut Request) -> Response;
}

impl<F, R> Handler for F
where
    F: Fn(&mut Request) -> R + Send + Sync + 'static,
    R: IntoResponse,
{
    fn handle(&self, request: &mut Request) -> Response {
        self(request).into_response()
    }
}

impl Handler for Box<dyn Handler> {
    fn handle(&self, request: &mut Request) -> Response {
        (**self).handle(request)
    }
}

impl<H: Handler + ?Sized> Handler for Arc<H> {
    fn handle(&self, request: &mut Request) -> Response {
        (**self).handle(request)
    }
}
