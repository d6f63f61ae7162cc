//! Picture files that no library here writes: JPEGs in every way that colours are stored, PNGs of every depth, with made-up sizes.

#![allow(dead_code, reason = "not every test file uses every helper")]

/// Bits on their way into entropy-coded data.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    pending: u32,
    count: u32,
}

impl Bits {
    fn push(&mut self, value: u32, count: u32) {
        for bit in (0..count).rev() {
            self.pending = (self.pending << 1) | ((value >> bit) & 1);
            self.count += 1;
            if self.count == 8 {
                self.bytes.push(self.pending as u8);
                if self.pending == 0xFF {
                    self.bytes.push(0); // stuffing
                }
                (self.pending, self.count) = (0, 0);
            }
        }
    }
}

/// A baseline JPEG (ITU-T T.81) of 8x8 blocks in a row, each of one colour: its samples, as many as there are components, as
/// the file stores them. `adobe` is the transform that Adobe's marker names: 0 none, 1 YCbCr, 2 YCCK.
pub fn flat_jpeg(blocks: &[&[u8]], adobe: Option<u8>) -> Vec<u8> {
    let components = blocks[0].len() as u8;
    let mut jpeg = vec![0xFF, 0xD8];
    let mut segment = |marker: u8, body: &[u8]| {
        jpeg.extend([0xFF, marker]);
        jpeg.extend((body.len() as u16 + 2).to_be_bytes());
        jpeg.extend(body);
    };
    if let Some(transform) = adobe {
        segment(0xEE, &[b"Adobe\0\x64\0\0\0\0", &[transform][..]].concat());
    }
    segment(0xDB, &[&[0][..], &[8; 64]].concat());
    let width = (8 * blocks.len() as u16).to_be_bytes();
    let parts: Vec<u8> = (1..=components).flat_map(|id| [id, 0x11, 0]).collect();
    segment(0xC0, &[&[8, 0, 8, width[0], width[1], components][..], &parts].concat());
    // Categories 0 to 8 of differences, each with four bits; and of AC coefficients the end of the block, with one.
    segment(0xC4, &[&[0x00, 0, 0, 0, 9][..], &[0; 12], &[0, 1, 2, 3, 4, 5, 6, 7, 8]].concat());
    segment(0xC4, &[&[0x10, 1][..], &[0; 15], &[0]].concat());
    let parts: Vec<u8> = (1..=components).flat_map(|id| [id, 0]).collect();
    segment(0xDA, &[&[components][..], &parts, &[0, 63, 0]].concat());
    let mut bits = Bits::default();
    let mut before = vec![0_i32; components.into()];
    for block in blocks {
        for (&sample, before) in block.iter().zip(&mut before) {
            // A coefficient of 8 times the mean, in units of 8.
            let level = i32::from(sample) - 128;
            let difference = level - std::mem::replace(before, level);
            let category = 32 - difference.unsigned_abs().leading_zeros();
            bits.push(category, 4);
            let low = if difference < 0 { difference - 1 } else { difference };
            bits.push(low as u32 & ((1 << category) - 1), category);
            bits.push(0, 1);
        }
    }
    while bits.count > 0 {
        bits.push(1, 1);
    }
    [jpeg, bits.bytes, vec![0xFF, 0xD9]].concat()
}

fn crc32(bytes: &[u8]) -> u32 {
    crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(bytes)
}

/// A PNG of these chunks.
pub fn png_of_chunks(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, body) in chunks {
        png.extend((body.len() as u32).to_be_bytes());
        let checked = [&kind[..], body].concat();
        png.extend(&checked);
        png.extend(crc32(&checked).to_be_bytes());
    }
    png
}

/// How the samples of a PNG lie in it.
#[derive(Clone, Copy)]
pub struct PngKind {
    /// 0 gray, 2 RGB, 3 palette, 4 gray with alpha, 6 RGB with alpha.
    pub colour: u8,
    pub depth: u8,
    pub interlaced: bool,
}

impl PngKind {
    fn header(self, width: u32, height: u32) -> (&'static [u8; 4], Vec<u8>) {
        let rest = [self.depth, self.colour, 0, 0, self.interlaced.into()];
        (b"IHDR", [&width.to_be_bytes()[..], &height.to_be_bytes(), &rest].concat())
    }

    /// A PNG whose pixel in column x and row y has the samples `sample(x, y)`, each below 2^depth. Its palette is that of
    /// [`colour_of`].
    pub fn png(self, width: u32, height: u32, sample: impl Fn(u32, u32) -> Vec<u16>) -> Vec<u8> {
        // Adam7: first column and row of each pass, and the steps between.
        let passes: &[[u32; 4]] = match self.interlaced {
            false => &[[0, 0, 1, 1]],
            true => &[[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]],
        };
        let mut raw = Vec::new();
        for &[left, top, right, down] in passes {
            for y in (top..height).step_by(down as usize) {
                let (mut row, mut pending, mut bits) = (vec![0_u8], 0_u32, 0);
                for x in (left..width).step_by(right as usize) {
                    for value in sample(x, y) {
                        pending = (pending << self.depth) | u32::from(value);
                        bits += u32::from(self.depth);
                        while bits >= 8 {
                            bits -= 8;
                            row.push((pending >> bits) as u8);
                        }
                    }
                }
                if bits > 0 {
                    row.push((pending << (8 - bits)) as u8);
                }
                if row.len() > 1 {
                    raw.extend(row);
                }
            }
        }
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut zlib, &raw).unwrap();
        let mut chunks = vec![self.header(width, height)];
        if self.colour == 3 {
            chunks.push((b"PLTE", (0..1_u16 << self.depth).flat_map(colour_of).collect()));
        }
        chunks.push((b"IDAT", zlib.finish().unwrap()));
        chunks.push((b"IEND", vec![]));
        png_of_chunks(&chunks)
    }
}

/// Colour number `index` of the palettes of [`PngKind::png`].
pub fn colour_of(index: u16) -> [u8; 3] {
    [(index * 13) as u8, 255 - index as u8, (index * 7 % 251) as u8]
}

/// A PNG of a few bytes that says it has this size.
pub fn png_that_claims(width: u32, height: u32) -> Vec<u8> {
    let kind = PngKind { colour: 2, depth: 8, interlaced: false };
    let nothing = vec![0x78, 0x9C, 0x63, 0, 0, 0, 1, 0, 1];
    png_of_chunks(&[kind.header(width, height), (b"IDAT", nothing), (b"IEND", vec![])])
}
