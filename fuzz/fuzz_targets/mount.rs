//! Mounts any bytes, and volumes with damage; looks at everything.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use umbra_fs::testing::fuzz::Template;

static TEMPLATE: LazyLock<Template> = LazyLock::new(Template::new);

fuzz_target!(|data: &[u8]| TEMPLATE.mount(data));
