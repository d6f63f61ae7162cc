//! Failures on purpose: what the program does when a driver fails can be tried where none fails by itself.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Gpu;
use crate::error::{Error, Kind, Result};

/// A failure to happen to a device: for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The driver takes the device away at this submission, from 1.
    Lost(u64),
    /// It has no memory for this submission, from 1, and takes the device away as drivers do then.
    OutOfMemory(u64),
    /// A shader file says `to` wherever it says `from`: a compiler that does something else, or that fails.
    Shader {
        /// File name under `shaders/`.
        file: String,
        /// What it says.
        from: String,
        /// What it is taken to say.
        to: String,
    },
}

impl std::str::FromStr for Fault {
    type Err = Error;

    /// `lost@N`, `out-of-memory@N` or `FILE:FROM=>TO`.
    fn from_str(text: &str) -> Result<Self> {
        let at = |n: &str| n.parse().ok().filter(|&n| n > 0);
        let parsed = match text.split_once('@') {
            Some(("lost", n)) => at(n).map(Self::Lost),
            Some(("out-of-memory", n)) => at(n).map(Self::OutOfMemory),
            _ => text.split_once(':').and_then(|(file, edit)| {
                let (from, to) = edit.split_once("=>")?;
                Some(Self::Shader { file: file.into(), from: from.into(), to: to.into() })
            }),
        };
        parsed.ok_or_else(|| {
            Error::new(Kind::Usage, format!("'{text}' is no fault"))
                .next("give lost@N or out-of-memory@N, N a submission from 1, or FILE:FROM=>TO")
        })
    }
}

/// A fault, and how near it is.
#[derive(Debug, Default)]
pub(super) struct Trap {
    fault: Option<Fault>,
    submissions: AtomicU64,
}

impl Trap {
    pub fn new(fault: Option<Fault>) -> Self {
        Self { fault, submissions: AtomicU64::new(0) }
    }

    /// The text of a shader as the compiler reads it.
    pub fn reads<'a>(&self, file: &str, text: &'a str) -> Cow<'a, str> {
        match &self.fault {
            Some(Fault::Shader { file: other, from, to }) if other == file => Cow::Owned(text.replace(from, to)),
            _ => Cow::Borrowed(text),
        }
    }
}

impl Gpu {
    /// Submits commands, unless the device is to fail here.
    pub(super) fn send(&self, commands: wgpu::CommandBuffer) -> wgpu::SubmissionIndex {
        match self.trap.fault {
            Some(Fault::Lost(at)) if self.reaches(at) => self.fail(Kind::DeviceLost),
            Some(Fault::OutOfMemory(at)) if self.reaches(at) => self.fail(Kind::OutOfMemory),
            _ => {}
        }
        self.queue.submit([commands])
    }

    fn reaches(&self, at: u64) -> bool {
        self.trap.submissions.fetch_add(1, Ordering::Relaxed) + 1 == at
    }

    /// What a driver's failure looks like: the device takes nothing any more, and the callbacks have said so.
    fn fail(&self, kind: Kind) {
        self.device.destroy();
        self.report(kind, "a fault that was asked for");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read() {
        assert_eq!("lost@3".parse::<Fault>().unwrap(), Fault::Lost(3));
        assert_eq!("out-of-memory@1".parse::<Fault>().unwrap(), Fault::OutOfMemory(1));
        let shader = Fault::Shader { file: "relu.wgsl".into(), from: "max(a, b)".into(), to: "a".into() };
        assert_eq!("relu.wgsl:max(a, b)=>a".parse::<Fault>().unwrap(), shader);
        for bad in ["", "lost", "lost@0", "lost@x", "relu.wgsl", "relu.wgsl:max"] {
            assert_eq!(bad.parse::<Fault>().unwrap_err().kind(), Kind::Usage, "{bad}");
        }
        let trap = Trap::new(Some(shader));
        assert_eq!(trap.reads("relu.wgsl", "y = max(a, b);"), "y = a;");
        assert_eq!(trap.reads("add.wgsl", "y = max(a, b);"), "y = max(a, b);");
    }
}
