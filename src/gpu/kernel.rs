//! Kernels as plain data: a WGSL source, the libraries it is linked with, and the variant wanted.
//!
//! There is no preprocessor. WGSL does not care about the order of declarations at module scope, so linking is
//! concatenation: the kernel comes first, so that line numbers in error messages are those of its file, then the
//! libraries it names, then a generated header. A variant is made of these only:
//!
//! * a generated header of `const` lines (register-tile sizes, element counts);
//! * how tensors that are bound by [`Dispatch::load`](super::Dispatch::load) are read: from buffers or from textures;
//! * the element type `E` of activations (and `E4`, four of them): f32, or f16 in a half-precision variant;
//! * the parameters `p`, either a uniform block or, in a specialised variant, a `const` of the same struct.
//!
//! Anything structural is another `.wgsl` file.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::Texel;
use super::texture::TEXEL;

/// A WGSL library: functions shared by several kernels.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Library {
    /// File name under `shaders/lib/`, for error messages.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// A WGSL kernel source: one file under `shaders/`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// File name under `shaders/`, for error messages and profiles.
    pub file: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The libraries it is linked with.
    pub libraries: &'static [&'static Library],
}

/// The value of a header constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Constant {
    /// `const NAME: u32 = value;`
    U32(u32),
    /// `const NAME: bool = value;`
    Bool(bool),
    /// `alias NAME = f16;` or, if false, `alias NAME = f32;`
    Half(bool),
}

/// A tensor that a kernel reads by a function that the linker writes: see [`Dispatch::load`](super::Dispatch::load).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Load {
    /// Its name in the kernel.
    pub name: &'static str,
    /// Where it is.
    pub from: ReadFrom,
    /// What is loaded at a time.
    pub texel: Texel,
}

/// Where a kernel reads a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// A buffer at this binding.
    Buffer(u32),
    /// A texture at this binding.
    Texture(u32),
    /// A buffer that the kernel declares by itself, since it writes it.
    Declared,
    /// Only other entry points of its source read it.
    Nowhere,
}

impl Load {
    /// The function `NAME_at`, and what it reads.
    fn declaration(self) -> String {
        let Self { name, from, texel } = self;
        let element = if texel.half { "f16" } else { "f32" };
        let (stored, loaded, component) = match texel.four {
            true => (format!("vec4<{element}>"), "vec4f", ""),
            false => (element.to_owned(), "f32", ".x"),
        };
        let variable = match from {
            ReadFrom::Buffer(at) => format!("@group(0) @binding({at}) var<storage, read> {name}: array<{stored}>;\n"),
            ReadFrom::Texture(at) => {
                format!("@group(0) @binding({at}) {};\n", texel.declaration(&format!("{name}_texture")))
            }
            ReadFrom::Declared | ReadFrom::Nowhere => String::new(),
        };
        let value = match from {
            ReadFrom::Texture(_) => format!("textureLoad({name}_texture, {TEXEL}){component}"),
            ReadFrom::Buffer(_) | ReadFrom::Declared => format!("{loaded}({name}[i])"),
            ReadFrom::Nowhere => format!("{loaded}()"),
        };
        format!("{variable}fn {name}_at(i: u32) -> {loaded} {{\n    return {value};\n}}\n")
    }
}

/// One variant of one entry point: everything that decides which pipeline is built.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// The source file.
    pub source: &'static Source,
    /// The entry point.
    pub entry: &'static str,
    /// Header constants.
    pub constants: Vec<(&'static str, Constant)>,
    /// Libraries this variant adds: the alternatives of one function.
    pub libraries: Vec<&'static Library>,
    /// Tensors it reads by functions that the linker writes.
    pub loads: Vec<Load>,
    /// Whether it uses subgroup operations.
    pub subgroups: bool,
    /// Whether the element type `E` is f16; f32 otherwise.
    pub half: bool,
    /// Side of the cooperative matrices `MatrixA`, `MatrixB` (f16) and `MatrixC` (f32), if it uses them.
    pub matrices: Option<u32>,
}

impl Kernel {
    /// The plain variant of `entry`.
    pub fn new(source: &'static Source, entry: &'static str) -> Self {
        Self {
            source,
            entry,
            constants: vec![],
            libraries: vec![],
            loads: vec![],
            subgroups: false,
            half: false,
            matrices: None,
        }
    }

    /// Adds a header constant.
    #[must_use]
    pub fn with_u32(mut self, name: &'static str, value: u32) -> Self {
        self.constants.push((name, Constant::U32(value)));
        self
    }

    /// Adds a boolean header constant.
    #[must_use]
    pub fn with_bool(mut self, name: &'static str, value: bool) -> Self {
        self.constants.push((name, Constant::Bool(value)));
        self
    }

    /// Adds another element type than `E`: f16 if `half`, which a variant with [f16](Self::with_half) may have, or f32.
    #[must_use]
    pub fn with_element(mut self, name: &'static str, half: bool) -> Self {
        self.constants.push((name, Constant::Half(half)));
        self
    }

    /// Links one more library.
    #[must_use]
    pub fn with_library(mut self, library: &'static Library) -> Self {
        self.libraries.push(library);
        self
    }

    /// Marks a variant that uses subgroup operations.
    #[must_use]
    pub fn with_subgroups(mut self) -> Self {
        self.subgroups = true;
        self
    }

    /// Makes the element type `E` f16 where `half` is set.
    #[must_use]
    pub fn with_half(mut self, half: bool) -> Self {
        self.half = half;
        self
    }

    /// Declares cooperative matrices of a side, `MATRIX`.
    #[must_use]
    pub fn with_matrices(mut self, side: u32) -> Self {
        self.matrices = Some(side);
        self
    }

    /// `file:entry`, for messages and profiles.
    pub fn label(&self) -> String {
        format!("{}:{}", self.source.file.trim_end_matches(".wgsl"), self.entry)
    }

    /// The linked WGSL module. `parameters` is the uniform block; with `specialised` its values become constants.
    pub fn link(&self, parameters: Option<&UniformBlock>, specialised: bool) -> String {
        // On the first line, so that line numbers stay those of the file.
        let mut text = if self.half { "enable f16; " } else { "" }.to_owned();
        if self.matrices.is_some() {
            text.push_str("enable wgpu_cooperative_matrix; ");
        }
        text.push_str(self.source.text);
        for library in self.source.libraries.iter().chain(&self.libraries) {
            let _ = write!(text, "\n// --- lib/{} ---\n{}", library.file, library.text);
        }
        text.push_str("\n// --- generated header ---\n");
        let element = if self.half { "f16" } else { "f32" };
        let _ = writeln!(text, "alias E = {element};\nalias E4 = vec4<{element}>;");
        if let Some(n) = self.matrices {
            let _ = writeln!(text, "const MATRIX: u32 = {n}u;");
            for (role, element) in [("A", "f16"), ("B", "f16"), ("C", "f32")] {
                let _ = writeln!(text, "alias Matrix{role} = coop_mat{n}x{n}<{element}, {role}>;");
            }
        }
        for (name, value) in &self.constants {
            let _ = match value {
                Constant::U32(v) => writeln!(text, "const {name}: u32 = {v}u;"),
                Constant::Bool(v) => writeln!(text, "const {name}: bool = {v};"),
                Constant::Half(v) => writeln!(text, "alias {name} = {};", if *v { "f16" } else { "f32" }),
            };
        }
        self.loads.iter().for_each(|load| text.push_str(&load.declaration()));
        match parameters {
            Some(block) if specialised => {
                let _ = writeln!(text, "const p = {};", block.literal());
            }
            Some(_) => text.push_str("@group(0) @binding(0) var<uniform> p: Params;\n"),
            None => {}
        }
        text
    }
}

/// The scalar types a parameter may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    /// Unsigned.
    U32,
    /// Signed.
    I32,
    /// Float.
    F32,
}

/// One field of a parameters struct, as Rust lays it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Field {
    /// Field name; WGSL's must be the same.
    pub name: &'static str,
    /// Scalar type.
    pub scalar: Scalar,
    /// Byte offset.
    pub offset: usize,
}

/// A parameters struct that mirrors `struct Params` of a kernel: made by [`uniform_block!`](crate::uniform_block).
pub trait Uniform: bytemuck::Pod {
    /// The fields in order.
    const FIELDS: &'static [Field];

    /// The block as plain data.
    fn block(&self) -> UniformBlock {
        UniformBlock { fields: Self::FIELDS, bytes: Cow::Owned(bytemuck::bytes_of(self).to_vec()) }
    }
}

/// The bytes of a parameters struct together with its layout.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UniformBlock {
    /// The fields in order.
    pub fields: &'static [Field],
    /// Their bytes.
    pub bytes: Cow<'static, [u8]>,
}

impl UniformBlock {
    /// A WGSL constructor expression with the block's values.
    fn literal(&self) -> String {
        let values: Vec<String> = self
            .fields
            .iter()
            .map(|field| {
                let word: [u8; 4] = std::array::from_fn(|i| self.bytes[field.offset + i]);
                match field.scalar {
                    Scalar::U32 => format!("{}u", u32::from_le_bytes(word)),
                    Scalar::I32 => format!("i32({})", i32::from_le_bytes(word)),
                    Scalar::F32 => format!("f32({:?})", f32::from_le_bytes(word)),
                }
            })
            .collect();
        format!("Params({})", values.join(", "))
    }
}

/// Declares a `#[repr(C)]` parameters struct and its field table, which a test compares with the WGSL struct.
#[macro_export]
macro_rules! uniform_block {
    (@scalar u32) => { $crate::gpu::Scalar::U32 };
    (@scalar i32) => { $crate::gpu::Scalar::I32 };
    (@scalar f32) => { $crate::gpu::Scalar::F32 };
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ident),* $(,)? }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
        $vis struct $name { $($(#[$fmeta])* pub $field: $ty),* }
        impl $crate::gpu::Uniform for $name {
            const FIELDS: &'static [$crate::gpu::Field] = &[$($crate::gpu::Field {
                name: stringify!($field),
                scalar: $crate::uniform_block!(@scalar $ty),
                offset: std::mem::offset_of!($name, $field),
            }),*];
        }
    };
}
pub use uniform_block;

#[cfg(test)]
mod tests {
    use super::*;

    uniform_block! {
        struct Demo { n: u32, shift: i32, eps: f32 }
    }

    static SOURCE: Source = Source { file: "demo.wgsl", text: "struct Params { n: u32 }\n", libraries: &[] };

    #[test]
    fn links_constants_and_parameters_last() {
        let block = Demo { n: 3, shift: -2, eps: 1e-5 }.block();
        let kernel = Kernel::new(&SOURCE, "forward").with_u32("TILE", 8).with_bool("BIAS", true);
        let text = kernel.link(Some(&block), true);
        assert!(text.starts_with("struct Params"));
        assert!(text.contains("const TILE: u32 = 8u;\nconst BIAS: bool = true;\n"), "{text}");
        assert!(text.ends_with("const p = Params(3u, i32(-2), f32(1e-5));\n"), "{text}");
        assert!(kernel.link(Some(&block), false).ends_with("var<uniform> p: Params;\n"));
    }

    #[test]
    fn writes_how_a_tensor_is_read() {
        let text = |four, half, from| Load { name: "x", from, texel: Texel { four, half } }.declaration();
        assert_eq!(
            text(true, true, ReadFrom::Buffer(2)),
            "@group(0) @binding(2) var<storage, read> x: array<vec4<f16>>;\nfn x_at(i: u32) -> vec4f {\n    \
             return vec4f(x[i]);\n}\n"
        );
        assert_eq!(
            text(false, false, ReadFrom::Texture(3)),
            "@group(0) @binding(3) var x_texture: texture_storage_2d<r32float, read>;\nfn x_at(i: u32) -> f32 {\n    \
             return textureLoad(x_texture, vec2u(i % 4096u, i / 4096u)).x;\n}\n"
        );
        assert_eq!(text(false, false, ReadFrom::Declared), "fn x_at(i: u32) -> f32 {\n    return f32(x[i]);\n}\n");
        assert_eq!(text(true, false, ReadFrom::Nowhere), "fn x_at(i: u32) -> vec4f {\n    return vec4f();\n}\n");
    }
}
