//! `client ADDRESS REQUESTS kept|anew` asks one request after the other, on one
//! connection or on one each.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;

fn main() -> Result<(), Box<dyn Error>> {
    let [_, address, requests, how]: [String; 4] = std::env::args()
        .collect::<Vec<_>>()
        .try_into()
        .map_err(|_| "three arguments")?;
    let requests: usize = requests.parse()?;
    if how == "kept" {
        let mut stream = TcpStream::connect(&address)?;
        let mut buffer = [0; 1024];
        for _ in 0..requests {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
            // The response is small and comes in one piece.
            let length = stream.read(&mut buffer)?;
            if !buffer[..length].ends_with(b"Hello, World!") {
                return Err("not the response".into());
            }
        }
        return Ok(());
    }
    for _ in 0..requests {
        let mut stream = TcpStream::connect(&address)?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
        let mut response = Vec::new();
        stream.read_to_end(&mut response)?;
        if !response.ends_with(b"Hello, World!") {
            return Err("not the response".into());
        }
    }
    Ok(())
}
