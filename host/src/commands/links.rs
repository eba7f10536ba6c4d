//! Hard links and symbolic links.

use super::{Context, destination, server_path, shown};
use crate::cli::{Ln, OneLink};
use crate::output::{Outcome, print};
use serde_json::json;
use std::os::unix::ffi::OsStrExt;

/// `umbra ln`
pub fn ln(context: &Context, options: Ln) -> Outcome {
    let target = options.target.as_bytes();
    let path = destination(&options.path, target)?;
    let mut client = context.connect()?;
    if options.symbolic {
        return Ok(client.symlink(&path, target)?);
    }
    Ok(client.link(&server_path(&options.target), &path)?)
}

/// `umbra readlink`
pub fn readlink(context: &Context, options: OneLink) -> Outcome {
    let mut target = context.connect()?.read_link(&server_path(&options.path))?;
    if context.format == crate::output::Format::Json {
        let hex = super::files::hex_of_odd(&target);
        return context.format.report(json!({ "target": shown(&target), "target_hex": hex }), String::new);
    }
    // Its bytes, whatever they are.
    target.push(b'\n');
    print(&target)
}
