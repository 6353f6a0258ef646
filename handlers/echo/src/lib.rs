//! `/echo.so/any/path?any=query`: answers with what it was asked: the method, the environ sorted by key, and the content.
//!
//! Try `curl --data 'some content' http://127.0.0.1:7788/echo.so/a/b?x=1`.

use abi::{Body, Environ, StartResponse};
use std::io::{self, Read};

abi::application!(application);

/// An error of reading, such as a client that leaves in the middle, is logged and ends the request.
fn application(env: &Environ, start: StartResponse) -> io::Result<Body> {
    let mut echo = format!("{}\n\n", env.method()).into_bytes();

    let mut pairs: Vec<_> = env.iter().collect();
    pairs.sort();
    for (key, value) in pairs {
        echo.extend([key, b"=", value, b"\n"].concat());
    }

    echo.push(b'\n');
    env.input().read_to_end(&mut echo)?;

    Ok(start.respond("200 OK", &[("Content-Type", "text/plain; charset=utf-8")], echo))
}
