//! Copies of tensors in textures, and whether a device would rather read those.
//!
//! A tensor lies in a buffer. Some drivers in software load from buffers one lane at a time, with a branch for each
//! value, and from textures all lanes at once: on a processor without AVX-512, Mesa 22.3 takes fourteen times as long
//! for the former, Mesa 26 one and a half times. There a kernel that reads much more than there is to copy reads from
//! copies. The numbers are the same, so are the results. Textures for storage, of one level, since for others the
//! driver asks each lane for its level: a third of the time.
//!
//! A texture is rows of [`TEXELS`] texels that hold a tensor's elements in order.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{
    Access, Buffer, DeviceClass, Dispatch, Gpu, Kernel, Operand, Reading, Source, Texel, Texture, TextureLoads,
    Uniform, Usage, uniform_block,
};
use crate::error::{Error, Kind, Result};

/// Texels of a row: a whole number of 256 bytes in any format, as copies need it.
const TEXELS: u64 = 4096;
/// Where texel number `i` is, in WGSL.
pub(super) const TEXEL: &str = "vec2u(i % 4096u, i / 4096u)";
/// Rows at most: what every WebGPU device has.
const MAX_ROWS: u64 = 8192;

/// The textures that launches share, one after another: by the position among the textures of a launch and the format.
/// A launch copies what it reads and nothing is kept from one to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Slot {
    position: usize,
    texel: Texel,
}

impl Texel {
    /// The format of a texture, and its name in WGSL.
    fn format(self) -> (wgpu::TextureFormat, &'static str) {
        match (self.four, self.half) {
            (false, false) => (wgpu::TextureFormat::R32Float, "r32float"),
            (true, false) => (wgpu::TextureFormat::Rgba32Float, "rgba32float"),
            // Not for storage on every device, so nothing is copied to it: see `Texture::fits`.
            (false, true) => (wgpu::TextureFormat::R16Float, "r16float"),
            (true, true) => (wgpu::TextureFormat::Rgba16Float, "rgba16float"),
        }
    }

    /// The declaration of a texture in WGSL.
    pub(super) fn declaration(self, name: &str) -> String {
        format!("var {name}: texture_storage_2d<{}, read>", self.format().1)
    }

    /// How a texture is bound.
    pub(super) fn binding_type(self) -> wgpu::BindingType {
        wgpu::BindingType::StorageTexture {
            access: wgpu::StorageTextureAccess::ReadOnly,
            format: self.format().0,
            view_dimension: wgpu::TextureViewDimension::D2,
        }
    }

    fn elements(self) -> usize {
        if self.four { 4 } else { 1 }
    }

    fn bytes(self) -> u64 {
        self.elements() as u64 * if self.half { 2 } else { 4 }
    }
}

impl Texture {
    fn texels(self) -> u64 {
        self.elements.div_ceil(self.texel.elements()) as u64
    }

    fn rows(self) -> u64 {
        self.texels().div_ceil(TEXELS).max(1)
    }

    /// Whether every device can hold it.
    pub fn fits(self) -> bool {
        self.rows() <= MAX_ROWS && (self.texel.four || !self.texel.half)
    }

    /// Its size, of whole rows.
    fn bytes(self) -> u64 {
        self.rows() * TEXELS * self.texel.bytes()
    }
}

/// Which textures launches need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextureSizes(BTreeMap<Slot, Texture>);

impl TextureSizes {
    /// The textures of these launches, one launch at a time.
    pub fn of<'a>(dispatches: impl IntoIterator<Item = &'a Dispatch>) -> Self {
        let mut sizes = BTreeMap::<Slot, Texture>::new();
        for (_, slot, texture) in dispatches.into_iter().flat_map(slots) {
            let largest = sizes.entry(slot).or_insert(texture);
            largest.elements = largest.elements.max(texture.elements);
        }
        Self(sizes)
    }

    /// Bytes of all textures.
    pub fn bytes(&self) -> u64 {
        self.0.values().map(|texture| texture.bytes()).sum()
    }
}

/// The bindings of a launch that are textures: their number, their place among the textures, and what is copied there.
fn slots(dispatch: &Dispatch) -> impl Iterator<Item = (usize, Slot, Texture)> + '_ {
    let textures = dispatch.bindings.iter().enumerate().filter_map(|(i, binding)| match binding.access {
        Access::Texture(texture) => Some((i, texture)),
        Access::Read | Access::ReadWrite => None,
    });
    let slot =
        |(position, (i, texture)): (usize, (usize, Texture))| (i, Slot { position, texel: texture.texel }, texture);
    textures.enumerate().map(slot)
}

/// Textures on a device.
#[derive(Debug, Default)]
pub struct Textures(BTreeMap<Slot, wgpu::Texture>);

/// A copy of a tensor to a texture.
#[derive(Debug, Clone)]
pub(super) struct Copy {
    buffer: Buffer,
    texture: wgpu::Texture,
    size: Texture,
}

impl Copy {
    /// Whole rows, and what is left for the last.
    pub(super) fn encode(&self, encoder: &mut wgpu::CommandEncoder) {
        let texels = self.size.texels();
        let row_bytes = TEXELS * self.size.texel.bytes();
        let mut copy = |first_row: u64, width: u64, height: u64| {
            if width == 0 || height == 0 {
                return;
            }
            let layout = wgpu::TexelCopyBufferLayout {
                offset: self.buffer.offset() + first_row * row_bytes,
                bytes_per_row: Some(row_bytes as u32),
                rows_per_image: None,
            };
            encoder.copy_buffer_to_texture(
                wgpu::TexelCopyBufferInfo { buffer: &self.buffer.inner, layout },
                wgpu::TexelCopyTextureInfo {
                    texture: &self.texture,
                    mip_level: 0,
                    origin: wgpu::Origin3d { x: 0, y: first_row as u32, z: 0 },
                    aspect: wgpu::TextureAspect::All,
                },
                wgpu::Extent3d { width: width as u32, height: height as u32, depth_or_array_layers: 1 },
            );
        };
        let whole = texels / TEXELS;
        copy(0, TEXELS, whole);
        copy(whole, texels % TEXELS, 1);
    }
}

impl Textures {
    /// The copies that a launch over `buffers` begins with, and a view of the texture for each binding that is one.
    pub(super) fn of(&self, dispatch: &Dispatch, buffers: &[&Buffer]) -> Result<Vec<(usize, Copy, wgpu::TextureView)>> {
        let found = slots(dispatch).map(|(i, slot, size)| {
            let texture = self.0.get(&slot).ok_or_else(|| {
                Error::new(Kind::Internal, "a launch reads a texture that was not allocated")
                    .at(dispatch.kernel.label())
            })?;
            let copy = Copy { buffer: buffers[i].clone(), texture: texture.clone(), size };
            Ok((i, copy, texture.create_view(&wgpu::TextureViewDescriptor::default())))
        });
        found.collect()
    }
}

uniform_block! {
    /// Mirrors `Params` of `probe_loads.wgsl`.
    struct ProbeParams { rounds: u32 }
}

static PROBE: Source = Source {
    file: "probe_loads.wgsl",
    text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/probe_loads.wgsl")),
    libraries: &[],
};

/// Floats that the probe reads: few enough for a cache.
const PROBE_FLOATS: usize = 1 << 14;
/// Rounds of the probe: few, which take as long as a launch and a copy, and many. What counts is the difference.
const PROBE_ROUNDS: [u32; 2] = [64, 576];
/// Workgroups of the probe, and lanes of each.
const PROBE_GROUPS: u32 = 64;
const PROBE_LANES: u32 = 8;
/// Runs of the probe, of which the fastest counts.
const PROBE_RUNS: usize = 5;
/// How many times as fast loads from textures must be to be called faster, and much faster. A copy costs a few loads.
const FASTER: [f64; 2] = [1.2, 4.0];

/// The launches that compare loads from buffers and from textures, with few rounds and with many.
pub fn load_probes() -> [[Dispatch; 2]; 2] {
    [None, Some(PROBE_FLOATS)].map(|copied| {
        PROBE_ROUNDS.map(|rounds| {
            let kernel =
                Kernel::new(&PROBE, "loads").with_u32("WG", PROBE_LANES).with_u32("COUNT", (PROBE_FLOATS / 4) as u32);
            Dispatch::new(kernel, ProbeParams { rounds }.block(), [PROBE_GROUPS, 1, 1])
                .load("x", Operand::Input(0), Reading { texel: Texel { four: true, half: false }, copied })
                .output(0)
        })
    })
}

impl Gpu {
    /// Allocates textures.
    ///
    /// # Errors
    /// [`Kind::OutOfMemory`] if the device refuses.
    pub fn allocate_textures(&self, sizes: &TextureSizes) -> Result<Textures> {
        let textures = sizes.0.iter().map(|(&slot, &size)| {
            if !size.fits() {
                return Err(Error::new(Kind::Internal, format!("a texture of {} rows was planned", size.rows())));
            }
            let rows = size.rows() as u32;
            let make = || {
                self.device.create_texture(&wgpu::TextureDescriptor {
                    label: Some("copy"),
                    size: wgpu::Extent3d { width: TEXELS as u32, height: rows, depth_or_array_layers: 1 },
                    mip_level_count: 1,
                    sample_count: 1,
                    dimension: wgpu::TextureDimension::D2,
                    format: size.texel.format().0,
                    usage: wgpu::TextureUsages::COPY_DST | wgpu::TextureUsages::STORAGE_BINDING,
                    view_formats: &[],
                })
            };
            let texture = self.scoped(wgpu::ErrorFilter::OutOfMemory, make);
            let failed =
                |_| self.out_of_memory(&format!("a texture of {} MiB could not be allocated", size.bytes() >> 20));
            texture.map(|texture| (slot, texture)).map_err(failed)
        });
        Ok(Textures(textures.collect::<Result<_>>()?))
    }

    /// How much faster this device loads from textures than from buffers: measured, in a tenth of a second. Only a
    /// driver in software is asked; a GPU's buffers are as good as its textures.
    ///
    /// # Errors
    /// [`Kind::DeviceLost`]. A probe that fails in any other way, or whose results differ, counts as slow.
    pub(super) fn texture_loads(&self) -> Result<TextureLoads> {
        if self.caps().class != DeviceClass::Software {
            return Ok(TextureLoads::Slow);
        }
        match self.probe_loads() {
            Err(e) if e.kind() == Kind::DeviceLost => Err(e),
            outcome => Ok(outcome.unwrap_or(TextureLoads::Slow)),
        }
    }

    fn probe_loads(&self) -> Result<TextureLoads> {
        let input = self.allocate("probe", 4 * PROBE_FLOATS as u64, Usage::Storage)?;
        let values: Vec<f32> = (0..PROBE_FLOATS).map(|i| (i % 251) as f32).collect();
        self.upload(&input, bytemuck::cast_slice(&values));
        let output = self.allocate("probe", u64::from(PROBE_GROUPS * PROBE_LANES) * 16, Usage::Storage)?;
        let probes = load_probes();
        let textures = self.allocate_textures(&TextureSizes::of(probes.iter().flatten()))?;
        // Seconds of the additional rounds, and the sums.
        let measure = |launches: &[Dispatch; 2]| -> Result<(f64, Vec<u8>)> {
            let mut best = [f64::INFINITY; 2];
            let recorded = [0, 1].map(|i| self.record(&launches[i], &[&input, &output], &textures));
            let recorded = recorded.into_iter().collect::<Result<Vec<_>>>()?;
            for _ in 0..PROBE_RUNS {
                for (best, recorded) in best.iter_mut().zip(&recorded) {
                    let started = Instant::now();
                    self.submit(std::slice::from_ref(recorded));
                    self.wait()?;
                    *best = best.min(started.elapsed().as_secs_f64());
                }
            }
            Ok((best[1] - best[0], self.download(&output)?))
        };
        let [buffer, texture] = [measure(&probes[0])?, measure(&probes[1])?];
        Ok(match buffer.0 / texture.0.max(f64::MIN_POSITIVE) {
            _ if buffer.1 != texture.1 => TextureLoads::Slow,
            ratio if ratio < FASTER[0] => TextureLoads::Slow,
            ratio if ratio < FASTER[1] => TextureLoads::Faster,
            _ => TextureLoads::MuchFaster,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOURS: Texel = Texel { four: true, half: false };
    const ONES: Texel = Texel { four: false, half: false };

    #[test]
    fn textures_are_as_large_as_the_largest_tensor_of_their_kind() {
        let row = TEXELS as usize;
        let dispatch = |textures: &[(usize, Texel)]| {
            let start = Dispatch::new(Kernel::new(&PROBE, "loads"), ProbeParams { rounds: 1 }.block(), [1; 3]);
            let load = |d: Dispatch, &(n, texel): &(usize, Texel)| {
                d.load("x", Operand::Input(0), Reading { texel, copied: Some(n) })
            };
            textures.iter().fold(start.output(0), load)
        };
        let mut launches = vec![];
        let mut bytes = |textures: &[(usize, Texel)]| {
            launches.push(dispatch(textures));
            TextureSizes::of(&launches).bytes()
        };
        assert_eq!(bytes(&[]), 0);
        assert_eq!(bytes(&[(4 * row, FOURS), (4, FOURS)]), 2 * 16 * TEXELS, "two textures of one row");
        assert_eq!(bytes(&[(4 * row + 4, FOURS)]), 3 * 16 * TEXELS, "the first has two rows now");
        assert_eq!(bytes(&[(4, Texel { half: true, ..FOURS })]), (3 * 16 + 8) * TEXELS, "f16 has its own");
        assert_eq!(bytes(&[(1, ONES)]), (3 * 16 + 8 + 4) * TEXELS, "and so have single elements");
    }

    #[test]
    fn what_no_device_must_hold_does_not_fit() {
        let most = (TEXELS * MAX_ROWS) as usize;
        for (elements, texel) in [(4 * most, FOURS), (most, ONES)] {
            assert!(Texture { elements, texel }.fits() && !Texture { elements: elements + 1, texel }.fits());
        }
        assert!(!Texture { elements: 1, texel: Texel { half: true, ..ONES } }.fits());
    }

    #[test]
    fn wgsl_knows_how_long_a_row_is() {
        assert_eq!(TEXEL, format!("vec2u(i % {TEXELS}u, i / {TEXELS}u)"));
    }
}
