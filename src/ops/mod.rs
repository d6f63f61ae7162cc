//! The operations. One folder an op: `mod.rs` (module doc, parameters, shape rule, forward, backward, kernels),
//! `reference.rs` (the CPU twin), `cases.rs` (the shapes that tests, benchmarks and the self-test use).

pub mod accumulate;
pub mod adam;
pub mod add;
pub mod add_rows;
pub mod attention;
pub mod augment;
pub mod avg_pool;
pub mod batch_norm;
pub mod bce_with_logits;
mod case;
pub mod cast;
pub mod channel_mul;
mod check;
pub mod clip_norm;
pub mod concat;
pub mod conv2d;
pub mod conv_transpose2d;
pub mod dice_loss;
pub mod drop_path;
pub mod dropout;
pub mod ema;
pub mod focal_loss;
pub mod gelu;
pub mod global_avg_pool;
pub mod layer_norm;
pub mod loss_scale;
pub mod matmul;
pub mod max_pool;
pub mod mix;
pub mod mul;
mod random;
pub mod relu;
pub mod scale;
mod self_test;
pub mod sgd;
pub mod sigmoid;
pub mod sigmoid_focal_loss;
pub mod silu;
pub mod slice;
pub mod softmax;
pub mod softmax_cross_entropy;
pub mod sum;
pub mod summary;
mod twin;
pub mod upsample;
pub mod window;

pub(crate) use case::and_half;
pub use case::{Case, CaseInput, Fill, Role, Trace, plan_with_gradients};
pub use check::{CaseReport, Measured, check_case, check_case_as, finite_differences, larger};
pub use random::{Draw, Random, Subject};
pub use self_test::{Tested, self_test};
pub use twin::{AnyTwin, Array, Real, Twin};

use crate::autograd::{Arithmetic, Finish, Gradients, Lower, Tape, Tensor};
use crate::error::{Error, Kind, Result};
use crate::gpu::{
    Caps, DeviceClass, Dispatch, Kernel, Library, Operand, Reading, Texel, Texture, TextureLoads, grid_for,
};
use crate::tensor::{DType, Shape, TensorType};

/// Declares a library under `shaders/lib/` as a static.
#[macro_export]
macro_rules! library {
    ($vis:vis $name:ident, $file:literal) => {
        $vis static $name: $crate::gpu::Library = $crate::gpu::Library {
            file: $file,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/lib/", $file)),
        };
    };
}

/// Index helpers shared by nearly every kernel.
pub static INDEX: Library = Library { file: "index.wgsl", text: include_str!("../../shaders/lib/index.wgsl") };
/// The grid of element-by-element kernels, four elements at a time.
pub static FOURS: Library = Library { file: "fours.wgsl", text: include_str!("../../shaders/lib/fours.wgsl") };
/// Which elements of a group of four are not finite.
pub(crate) static FINITE: Library =
    Library { file: "finite.wgsl", text: include_str!("../../shaders/lib/finite.wgsl") };
/// The logarithm of one plus a small number.
pub(crate) static LOG_1P: Library =
    Library { file: "log_1p.wgsl", text: include_str!("../../shaders/lib/log_1p.wgsl") };
/// The sum over the lanes of a workgroup.
pub(crate) static LANE_SUM: Library =
    Library { file: "lane_sum.wgsl", text: include_str!("../../shaders/lib/lane_sum.wgsl") };
/// Rows of a matrix, each shared by several lanes: see [`row_lanes`].
pub(crate) static ROWS: Library = Library { file: "rows.wgsl", text: include_str!("../../shaders/lib/rows.wgsl") };
/// Counter-based random numbers.
pub static RANDOM: Library = Library { file: "random.wgsl", text: include_str!("../../shaders/lib/random.wgsl") };

/// The name of the u32 variable `[1]` that counts optimizer steps; dropout draws by it.
pub const STEP: &str = "optimizer.step";

/// Invocations of a workgroup in kernels that map one invocation to one element.
pub const WORKGROUP: u32 = 64;

/// Rounds of all loops of one invocation together that every driver makes: Mesa's software driver (22.3, not 26.1) ends
/// them silently after 65,535. Kernels cut long sums into runs; what is left is refused by [`check_loop`].
pub(crate) const LONGEST_LOOP: usize = 65_535;

/// Whether every loop of a kernel counts for [`LONGEST_LOOP`], also such as are unrolled without run-time checks.
pub(crate) fn all_loops_count(caps: &Caps) -> bool {
    caps.checked && caps.class == DeviceClass::Software
}

/// Refuses a loop that some software drivers would end early.
///
/// # Errors
/// [`Kind::Unsupported`].
pub(crate) fn check_loop(rounds: usize, caps: &Caps) -> Result<()> {
    if caps.class != DeviceClass::Software || rounds <= LONGEST_LOOP {
        return Ok(());
    }
    let message = format!("a kernel would loop {rounds} times; some software drivers stop silently at {LONGEST_LOOP}");
    Err(Error::new(Kind::Unsupported, message).next("use a smaller --size, or a GPU"))
}

/// Groups of four that a lane takes in element-by-element kernels: `EACH` in `fours.wgsl`.
const EACH: u32 = 4;

/// The groups of four elements of an element-by-element kernel, and its grid.
pub(crate) fn fours(count: usize) -> (u32, [u32; 3]) {
    let fours = count.div_ceil(4);
    (fours as u32, grid_for(fours, WORKGROUP * EACH))
}

/// Copies of tensors smaller than this are not worth their launch, where a value is read once or a few times.
const WORTH_COPYING: usize = 1 << 14;

/// How a kernel that reads a tensor once or a few times reads it, four elements at a time or one.
pub(crate) fn reading(ty: &TensorType, four: bool, caps: &Caps) -> Reading {
    let (elements, texel) = (ty.shape.len(), Texel { four, half: ty.is_half() });
    let much_faster = caps.textures == TextureLoads::MuchFaster;
    let copied = much_faster && elements >= WORTH_COPYING && Texture { elements, texel }.fits();
    Reading { texel, copied: copied.then_some(elements) }
}

/// Binds the first inputs, for loads under these names: see [`Dispatch::load`].
pub(crate) fn load_inputs(dispatch: Dispatch, names: &[&'static str], four: bool, cx: &Lower<'_>) -> Dispatch {
    names.iter().enumerate().fold(dispatch, |dispatch, (i, name)| {
        dispatch.load(name, Operand::Input(i), reading(&cx.inputs[i], four, cx.caps))
    })
}

library!(LANES_VEC4, "lanes_vec4.wgsl");
library!(LANES_SCALAR, "lanes_scalar.wgsl");

/// A kernel whose lanes take `V`, four elements or one; it loads f16 if `half[0]` and stores f16 if `half[1]`.
pub(crate) fn lanes(kernel: Kernel, four: bool, half: [bool; 2]) -> Kernel {
    kernel.with_half(half[0] || half[1]).with_element("X", half[0]).with_element("Y", half[1]).with_library(if four {
        &LANES_VEC4
    } else {
        &LANES_SCALAR
    })
}

/// `LANES` of `rows.wgsl`: the lanes that share a row of `columns`. Given the device, where lanes have to meet: in
/// software a barrier costs more than the lanes save.
pub(crate) fn row_lanes(columns: usize, meeting: Option<&Caps>) -> u32 {
    let most = if meeting.is_some_and(|caps| caps.class == DeviceClass::Software) { 8 } else { WORKGROUP };
    (columns.next_power_of_two() as u32).min(most)
}

/// Declares a kernel source under `shaders/`, linked with the index helpers and any further libraries.
#[macro_export]
macro_rules! wgsl {
    ($file:literal $(, $library:expr)*) => {
        $crate::gpu::Source {
            file: $file,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/shaders/", $file)),
            libraries: &[&$crate::ops::INDEX $(, &$library)*],
        }
    };
}

/// All ops as the tests see them.
pub fn subjects() -> Vec<Subject> {
    macro_rules! subject {
        ($op:ident $(, $half:literal)*) => {
            Subject { op: stringify!($op), cases: $op::cases, random: $op::random, half: &[$($half),*] }
        };
    }
    // Ops on activations take f16 as well; gamma, statistics, biases and the like stay f32.
    vec![
        subject!(accumulate),
        subject!(adam),
        subject!(add, 0, 1),
        subject!(add_rows, 0),
        subject!(attention),
        subject!(augment),
        subject!(avg_pool, 0),
        subject!(batch_norm, 0),
        subject!(bce_with_logits),
        subject!(cast),
        subject!(channel_mul, 0, 1),
        subject!(clip_norm),
        subject!(concat, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
        subject!(conv2d, 0, 1),
        subject!(conv_transpose2d, 0, 1),
        subject!(dice_loss),
        subject!(drop_path, 0),
        subject!(dropout, 0),
        subject!(ema),
        subject!(focal_loss),
        subject!(gelu, 0),
        subject!(global_avg_pool, 0),
        subject!(layer_norm, 0),
        subject!(loss_scale),
        subject!(matmul, 0, 1),
        subject!(max_pool, 0),
        subject!(mix, 0, 1),
        subject!(mul, 0, 1),
        subject!(relu, 0),
        subject!(scale, 0),
        subject!(sgd),
        subject!(sigmoid, 0),
        subject!(sigmoid_focal_loss),
        subject!(silu, 0),
        subject!(slice, 0),
        subject!(softmax, 0),
        subject!(softmax_cross_entropy),
        subject!(sum),
        subject!(summary, 1),
        subject!(upsample, 0),
    ]
}

/// The case lists of all ops: what tests, benchmarks and the self-test run.
pub fn all_cases() -> Vec<Case> {
    let cases = subjects().into_iter().flat_map(|subject| and_half((subject.cases)(), subject.half));
    cases.chain(conv2d::normed_cases()).collect()
}

/// Appends the backward pass of `loss`, a tensor of one element, to the tape.
///
/// # Errors
/// Errors of the backward rules.
pub fn backward(tape: &mut Tape, loss: Tensor) -> Result<Gradients> {
    let one = scale::fill(tape, TensorType::f32(tape.shape(loss).clone()), 1.0)?;
    backward_from(tape, &[(loss, one)])
}

/// Appends the backward pass that starts from given gradients of some values.
///
/// # Errors
/// Errors of the backward rules.
pub fn backward_from(tape: &mut Tape, seeds: &[(Tensor, Tensor)]) -> Result<Gradients> {
    let add = |tape: &mut Tape, a, b| {
        // One of them may be wider than the value: the sum is too.
        let dtype = if tape.ty(a).is_half() { tape.ty(b).dtype } else { DType::F32 };
        let (a, b) = (cast::cast(tape, a, dtype)?, cast::cast(tape, b, dtype)?);
        add::add(tape, a, b)
    };
    let narrow = |tape: &mut Tape, gradient| cast::cast(tape, gradient, DType::F16);
    tape.backward(seeds, Arithmetic { add: &add, narrow: &narrow })
}

/// What a kernel does to each element of its result before storing it. A residual is the node's last input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Tail {
    pub residual: bool,
    pub relu: bool,
}

impl Tail {
    /// With one more step; `None` if it cannot come after those that are there.
    pub fn then(self, step: Finish) -> Option<Self> {
        match step {
            Finish::Add if self == Self::default() => Some(Self { residual: true, relu: false }),
            Finish::Relu if !self.relu => Some(Self { relu: true, ..self }),
            _ => None,
        }
    }
}

/// The shape rule of element-by-element ops: all inputs are alike, and so is the output.
///
/// # Errors
/// [`Kind::Shape`](crate::Kind::Shape) if they differ; as [`float_shape`].
pub(crate) fn same_shape(inputs: &[TensorType]) -> Result<Vec<TensorType>> {
    let first = &inputs[0];
    float_shape(first)?;
    match inputs.iter().find(|ty| *ty != first) {
        None => Ok(vec![first.clone()]),
        Some(other) => Err(crate::Error::new(crate::Kind::Shape, format!("shapes {first} and {other} differ"))),
    }
}

/// Most elements of a tensor: kernels index with 32 bits, and the last row of a folded grid runs past the end.
const MAX_ELEMENTS: usize = 1 << 31;

/// The shape of a float tensor, f32 or f16, whose elements 32-bit indices reach.
///
/// # Errors
/// [`Kind::Shape`] for another element type and for no elements, [`Kind::Unsupported`] for too many.
pub(crate) fn float_shape(ty: &TensorType) -> Result<&Shape> {
    let elements = ty.shape.dims().iter().try_fold(1, |n: usize, &d| n.checked_mul(d));
    let problem = match elements {
        _ if ty.dtype == DType::U32 => "is not a float tensor",
        Some(0) => "has no elements",
        Some(n) if n <= MAX_ELEMENTS => return Ok(&ty.shape),
        _ => {
            let what = format!("{ty} has more elements than 32-bit indices reach");
            return Err(Error::new(Kind::Unsupported, what).next("use a smaller --batch or --size"));
        }
    };
    Err(Error::new(Kind::Shape, format!("{ty} {problem}")))
}

/// The shape of a tensor that must be f32: what is summed, compared or kept at full precision.
///
/// # Errors
/// As [`float_shape`]; [`Kind::Shape`] for f16.
pub(crate) fn f32_shape(ty: &TensorType) -> Result<&Shape> {
    if ty.is_half() {
        return Err(Error::new(Kind::Shape, format!("{ty} is not f32")));
    }
    float_shape(ty)
}

/// The bytes of a node's inputs and outputs: the least its kernels move.
pub(crate) fn moved(cx: &Lower<'_>) -> u64 {
    cx.inputs.iter().chain(cx.outputs).map(TensorType::bytes).sum()
}

/// The extents `[N, H, W, C]` of a float image batch.
///
/// # Errors
/// As [`float_shape`]; [`Kind::Shape`] for a rank that is not 4.
pub(crate) fn image_batch(ty: &TensorType) -> Result<[usize; 4]> {
    float_shape(ty)?.nhwc().ok_or_else(|| Error::new(Kind::Shape, format!("{ty} is not an image batch [N, H, W, C]")))
}
