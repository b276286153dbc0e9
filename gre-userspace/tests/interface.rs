//! `docs/io.xgre.Control.varlink` is what the daemon says of its interface, laid out for reading.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::Path,
};

use gre_userspace::{
    control::{access::Access, server::Server},
    daemon::handle::Handle,
};
use serde_json::Value;

#[test]
fn the_interface_file_is_what_the_daemon_describes() {
    let told = laid_out(&described());
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/io.xgre.Control.varlink");
    let kept = fs::read_to_string(&file).unwrap_or_default();
    if kept != told {
        let fresh = Path::new(env!("CARGO_TARGET_TMPDIR")).join("io.xgre.Control.varlink");
        fs::write(&fresh, told).unwrap();
        panic!("the interface has changed: cp {} {}", fresh.display(), file.display());
    }
}

/// By GetInterfaceDescription.
fn described() -> String {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("control.sock");
    let _server = Server::start(&socket, Handle::new().0, Access::default()).unwrap();
    let mut stream = UnixStream::connect(&socket).unwrap();
    stream
        .write_all(
            b"{\"method\":\"org.varlink.service.GetInterfaceDescription\",\
              \"parameters\":{\"interface\":\"io.xgre.Control\"}}\0",
        )
        .unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer: Value = serde_json::from_slice(answer.strip_suffix(b"\0").unwrap()).unwrap();
    answer["parameters"]["description"].as_str().unwrap().to_owned()
}

/// The same with one field a line, below its comment.
fn laid_out(description: &str) -> String {
    let mut text = String::new();
    let mut in_type = false;
    for line in description.lines() {
        let (code, comment) = match line.split_once('#') {
            Some((code, comment)) => (code, Some(comment.trim())),
            None => (line, None),
        };
        let mut code = code.trim();
        if let Some((head, fields)) =
            code.split_once('(').filter(|_| !in_type && code.starts_with("type "))
        {
            _ = writeln!(text, "{head}(");
            (in_type, code) = (true, fields);
        }
        let is_last = in_type && code.ends_with(')');
        if in_type {
            let fields = code.trim_end_matches(')').split(',').map(str::trim);
            let fields: Vec<_> = fields.filter(|field| !field.is_empty()).collect();
            for (at, field) in fields.iter().enumerate() {
                let comma = if is_last && at + 1 == fields.len() { "" } else { "," };
                _ = writeln!(text, "  {field}{comma}");
            }
        } else if !code.is_empty() || comment.is_none() {
            _ = writeln!(text, "{code}");
        }
        if let Some(comment) = comment {
            let indent = if in_type { "  " } else { "" };
            _ = writeln!(text, "{indent}# {comment}");
        }
        if is_last {
            text.push_str(")\n");
            in_type = false;
        }
    }
    text
}
