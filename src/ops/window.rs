//! Sliding windows over image batches: the geometry that the pooling ops share.

use crate::error::{Error, Kind, Result};
use crate::gpu::{Library, uniform_block};
use crate::onnx::Attribute;

/// Which part of a window lies inside the image, and which windows cover a pixel.
pub static WINDOW: Library = Library { file: "window.wgsl", text: include_str!("../../shaders/lib/window.wgsl") };

/// Largest extent, stride or padding: sums of three stay within 32 bits.
const MAX_EXTENT: usize = 1 << 30;

/// Rows and columns added around an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Padding {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Padding {
    /// As an attribute of ONNX's operators.
    pub(crate) fn onnx(self) -> Attribute {
        Attribute::extents("pads", &[self.top, self.left, self.bottom, self.right])
    }

    /// The same on all four sides.
    pub fn all(n: usize) -> Self {
        Self { top: n, bottom: n, left: n, right: n }
    }
}

/// A window that slides over the padded image. Axes are rows, columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// Extents.
    pub size: [usize; 2],
    /// Steps.
    pub stride: [usize; 2],
    /// Padding of the image.
    pub padding: Padding,
}

impl Window {
    /// A square window with the same stride and padding on all sides.
    pub fn square(size: usize, stride: usize, padding: usize) -> Self {
        Self { size: [size; 2], stride: [stride; 2], padding: Padding::all(padding) }
    }

    /// As attributes of ONNX's pooling operators.
    pub(crate) fn onnx(&self) -> [Attribute; 3] {
        [
            Attribute::extents("kernel_shape", &self.size),
            Attribute::extents("strides", &self.stride),
            self.padding.onnx(),
        ]
    }

    /// Rows and columns of windows over an image of `height` x `width` that lie wholly inside the padded image.
    ///
    /// # Errors
    /// [`Kind::Shape`] for an empty window, a stride of 0, padding not smaller than the window (a window could then
    /// miss the image) or a window larger than the padded image.
    pub fn outputs(&self, height: usize, width: usize) -> Result<[usize; 2]> {
        let Padding { top, bottom, left, right } = self.padding;
        let axis = |axis: usize, extent: usize, before: usize, after: usize| {
            let (window, stride) = (self.size[axis], self.stride[axis]);
            let name = ["height", "width"][axis];
            let refuse = |message: String| Err(Error::new(Kind::Shape, format!("window {name}: {message}")));
            if window == 0 || stride == 0 {
                return refuse(format!("extent {window} and stride {stride} must be at least 1"));
            }
            if before >= window || after >= window {
                return refuse(format!("padding {before} and {after} must be smaller than the extent {window}"));
            }
            if [window, stride, extent].iter().any(|&n| n >= MAX_EXTENT) {
                return refuse(format!("extent {window}, stride {stride} or image extent {extent} is too large"));
            }
            match (extent + before + after).checked_sub(window) {
                Some(rest) => Ok(rest / stride + 1),
                None => refuse(format!("{window} is larger than the padded image's {}", extent + before + after)),
            }
        };
        Ok([axis(0, height, top, bottom)?, axis(1, width, left, right)?])
    }

    /// The parameters of a pooling kernel that writes `count` elements, for images `[N, H, W, C]` and `[P, Q]` windows.
    pub(crate) fn params(&self, count: usize, image: [usize; 4], outputs: [usize; 2]) -> WindowParams {
        let [_, height, width, channels] = image;
        WindowParams {
            count: count as u32,
            height: height as u32,
            width: width as u32,
            channels: channels as u32,
            out_height: outputs[0] as u32,
            out_width: outputs[1] as u32,
            window_height: self.size[0] as u32,
            window_width: self.size[1] as u32,
            stride_height: self.stride[0] as u32,
            stride_width: self.stride[1] as u32,
            pad_top: self.padding.top as u32,
            pad_left: self.padding.left as u32,
        }
    }
}

uniform_block! {
    /// Mirrors `Params` of the pooling kernels.
    pub(crate) struct WindowParams {
        count: u32,
        height: u32,
        width: u32,
        channels: u32,
        out_height: u32,
        out_width: u32,
        window_height: u32,
        window_width: u32,
        stride_height: u32,
        stride_width: u32,
        pad_top: u32,
        pad_left: u32,
    }
}

/// What the CPU twins of the pooling ops share.
pub(crate) mod reference {
    use super::Window;

    /// Calls `f(row within the window, column within the window, h, w)` for the pixels of the image under window `(p,
    /// q)`, in row-major order.
    pub(crate) fn pixels(
        window: &Window,
        [height, width]: [usize; 2],
        [p, q]: [usize; 2],
        mut f: impl FnMut(usize, usize, usize, usize),
    ) {
        for r in 0..window.size[0] {
            for s in 0..window.size[1] {
                let h = (p * window.stride[0] + r).checked_sub(window.padding.top).filter(|&h| h < height);
                let w = (q * window.stride[1] + s).checked_sub(window.padding.left).filter(|&w| w < width);
                if let (Some(h), Some(w)) = (h, w) {
                    f(r, s, h, w);
                }
            }
        }
    }

    /// Calls `f(n, p, q, c)` for every output element.
    pub(crate) fn each_output([nn, pp, qq, cc]: [usize; 4], mut f: impl FnMut(usize, usize, usize, usize)) {
        for n in 0..nn {
            for p in 0..pp {
                for q in 0..qq {
                    (0..cc).for_each(|c| f(n, p, q, c));
                }
            }
        }
    }
}

/// Geometries with what is particular about them, and an image batch for each: what the cases of the pooling ops use.
pub(crate) fn geometries() -> Vec<(&'static str, [usize; 4], Window)> {
    let wide = Window { size: [2, 3], stride: [3, 1], padding: Padding { top: 1, bottom: 0, left: 0, right: 2 } };
    let tall = Window { size: [5, 2], stride: [2, 3], padding: Padding { top: 0, bottom: 3, left: 1, right: 0 } };
    let flat = Window { size: [1, 7], stride: [1, 1], padding: Padding { left: 3, right: 3, ..Padding::default() } };
    let column = Window { size: [3, 1], stride: [1, 1], padding: Padding { top: 0, bottom: 2, left: 0, right: 0 } };
    vec![
        ("3x3 stride 2 padding 1", [2, 11, 13, 5], Window::square(3, 2, 1)),
        ("3x3 stride 2 padding 1 of even extents", [1, 12, 14, 67], Window::square(3, 2, 1)),
        ("2x2 stride 2", [3, 9, 8, 3], Window::square(2, 2, 0)),
        ("3x3 stride 1 padding 1", [1, 7, 10, 6], Window::square(3, 1, 1)),
        ("3x3 stride 2", [2, 8, 17, 4], Window::square(3, 2, 0)),
        ("window 1 stride 3", [1, 8, 10, 3], Window::square(1, 3, 0)),
        ("5x5 stride 1 padding 4", [1, 4, 6, 2], Window::square(5, 1, 4)),
        ("one pixel", [1, 1, 1, 1], Window::square(1, 1, 0)),
        ("one pixel, padded", [2, 1, 1, 3], Window::square(3, 2, 1)),
        ("2x3 stride 3x1, padding differs", [2, 10, 7, 3], wide),
        ("5x2 stride 2x3, padding differs", [2, 9, 12, 5], tall),
        ("1x7 padding 0x3", [2, 3, 9, 4], flat),
        ("3x1, padding below", [1, 7, 4, 3], column),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_windows() {
        assert_eq!(Window::square(3, 2, 1).outputs(112, 7).unwrap(), [56, 4]);
        assert_eq!(Window::square(2, 2, 0).outputs(9, 8).unwrap(), [4, 4]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let windows = [
            (Window::square(0, 1, 0), "at least 1"),
            (Window::square(2, 0, 0), "at least 1"),
            (Window::square(2, 1, 2), "smaller than the extent"),
            (Window::square(9, 1, 1), "larger than the padded image"),
            (Window::square(usize::MAX, 1, usize::MAX - 1), "too large"),
            (Window::square(2, usize::MAX, 0), "too large"),
        ];
        for (window, expected) in windows {
            let e = window.outputs(6, 6).unwrap_err();
            assert!(e.kind() == Kind::Shape && e.what().contains(expected), "{window:?}: {e}");
        }
    }
}
