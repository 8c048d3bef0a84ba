use std::io::{self, ErrorKind, Read};

/// Reads to the end of `reader`, or until `buffer` is full. Returns the part that was filled.
pub(crate) fn until_full(mut reader: impl Read, buffer: &mut [u8]) -> io::Result<&[u8]> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(&buffer[..length])
}
