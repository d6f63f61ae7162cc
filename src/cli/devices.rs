//! `lesion-gpu devices`

use super::{bytes, say};
use crate::error::{Error, Kind, Result};
use crate::gpu::{NO_ADAPTER_HINT, list_adapters};

pub(super) fn run() -> Result<()> {
    let adapters = list_adapters();
    if adapters.is_empty() {
        return Err(
            Error::new(Kind::NoAdapter, "no GPU adapter was found, not even a software one").next(NO_ADAPTER_HINT)
        );
    }
    for a in adapters {
        let default = if a.index == 0 { "  (default)" } else { "" };
        say(format!("{}: {}{default}", a.index, a.name));
        say(format!("   {} GPU through {}, driver {}", a.class.name(), a.backend, a.driver));
        say(format!("   features: {}", a.features.iter().map(|f| f.name()).collect::<Vec<_>>().join(", ")));
        let subgroups = a.caps.subgroups.map_or("none".to_owned(), |s| match s.min == s.max {
            true => s.min.to_string(),
            false => format!("{} to {}", s.min, s.max),
        });
        say(format!(
            "   limits: binding {}, buffer {}, workgroup {} invocations and {}, subgroup {subgroups}{}",
            bytes(a.caps.max_binding),
            bytes(a.caps.max_buffer),
            a.caps.max_invocations,
            bytes(u64::from(a.caps.max_workgroup_memory)),
            a.matrices.map_or(String::new(), |n| format!(", matrices {n}x{n}")),
        ));
    }
    Ok(())
}
