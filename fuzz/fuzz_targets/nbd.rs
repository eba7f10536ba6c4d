//! Sends any bytes to a connection of NBD.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use umbra_server::testing::fuzz::Template;

static TEMPLATE: LazyLock<Template> = LazyLock::new(Template::new);

fuzz_target!(|data: &[u8]| TEMPLATE.nbd(data));
