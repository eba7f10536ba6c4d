//! Hard links and symbolic links.

use super::{Context, destination, report_of, server_path};
use crate::cli::{Ln, OneLink};
use crate::names::listed;
use crate::output::Outcome;
use serde_json::json;
use std::os::unix::ffi::OsStrExt;

/// `umbra ln`
pub fn ln(context: &Context, options: Ln) -> Outcome {
    let target = options.target.as_bytes();
    let path = destination(&options.path, target)?;
    let mut client = context.connect()?;
    let fields = if options.symbolic {
        client.symlink(&path, target)?;
        report_of(&[("path", &path), ("target", target)], json!({ "symbolic": true }))
    } else {
        let target = server_path(&options.target);
        client.link(&target, &path)?;
        report_of(&[("path", &path), ("target", &target)], json!({ "symbolic": false }))
    };
    context.format.report(fields, String::new)
}

/// `umbra readlink`
pub fn readlink(context: &Context, options: OneLink) -> Outcome {
    let target = context.connect()?.read_link(&server_path(&options.path))?;
    let fields = report_of(&[("target", &target)], json!({}));
    context.format.report(fields, || [&listed(&target)[..], b"\n"].concat())
}
