//! What clients send, for the benches of the parts.

pub(crate) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

pub(crate) const BROWSER: &[u8] = b"GET /orders/4711?page=2&sort=date HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://shop.example.com/orders\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=c2Vzc2lvbi1pZC1vZi1hLWN1c3RvbWVy; theme=dark; consent=1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\
    Sec-Fetch-User: ?1\r\n\
    Priority: u=0, i\r\n\
    If-None-Match: \"5f3b-61a2c4d9\"\r\n\r\n";

pub(crate) const POST: &[u8] = b"POST /orders HTTP/1.1\r\n\
    Host: shop.example.com\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 27\r\n\
    Accept: application/json\r\n\r\n";

pub(crate) const POST_BODY: &[u8] = b"{\"article\": 17, \"count\": 2}";

pub(crate) const REPLY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
