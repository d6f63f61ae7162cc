// GELU: y = x Phi(x), element by element, with the normal distribution's Phi or, with TANH, its approximation.

struct Params {
    fours: u32, // groups of four elements
}

// forward
@group(0) @binding(1) var<storage, read> x: array<E4>; // [fours]
@group(0) @binding(2) var<storage, read_write> y: array<E4>; // [fours]

// grad_x
@group(0) @binding(2) var<storage, read> d_y: array<E4>; // [fours]
@group(0) @binding(3) var<storage, read_write> d_x: array<E4>; // [fours]

/// Phi(x): in the middle 1/2 + x P(x^2), further out exp(-x^2 / 2) t Q(t) with t = 1 / (1 + 0.3 |x|), or one minus that.
/// P and Q are least-squares fits in Chebyshev polynomials; either is off by less than 1e-7.
fn phi_exact(x: vec4f) -> vec4f {
    let u = x * x;
    var middle = vec4f(-2.5336369446904428e-8);
    middle = fma(middle, u, vec4f(6.129402549959195e-7));
    middle = fma(middle, u, vec4f(-9.348253115604166e-6));
    middle = fma(middle, u, vec4f(0.00011533578799571842));
    middle = fma(middle, u, vec4f(-0.0011872726026922464));
    middle = fma(middle, u, vec4f(0.009973541833460331));
    middle = fma(middle, u, vec4f(-0.06649038195610046));
    middle = fma(middle, u, vec4f(0.3989422917366028));
    let t = 1.0 / (1.0 + 0.3 * abs(x));
    var far = vec4f(-0.046103864908218384);
    far = fma(far, t, vec4f(0.06212260201573372));
    far = fma(far, t, vec4f(0.04723917692899704));
    far = fma(far, t, vec4f(0.08755461871623993));
    far = fma(far, t, vec4f(0.10956822335720062));
    far = fma(far, t, vec4f(0.11953623592853546));
    far = fma(far, t, vec4f(0.11969272792339325));
    far *= t * exp(-0.5 * u);
    return select(select(far, 1.0 - far, x > vec4f()), fma(x, middle, vec4f(0.5)), u < vec4f(2.25));
}

const SQRT_2_OVER_PI: f32 = 0.7978845608028654;
const CUBE: f32 = 0.044715;

/// (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, which is a sigmoid of twice the argument.
fn phi_tanh(x: vec4f) -> vec4f {
    let argument = 2.0 * SQRT_2_OVER_PI * (x + CUBE * x * x * x);
    let e = exp(-abs(argument));
    return select(e, vec4f(1.0), x >= vec4f()) / (1.0 + e);
}

/// Where Phi is 0 or 1 in f32 already; further out squares and cubes would overflow.
fn inner(x: vec4f) -> vec4f {
    return clamp(x, vec4f(-20.0), vec4f(20.0));
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let v = vec4f(x[i]);
        var phi: vec4f;
        if TANH {
            phi = phi_tanh(inner(v));
        } else {
            phi = phi_exact(inner(v));
        }
        y[i] = E4(v * phi);
    }
}

@compute @workgroup_size(WG)
fn grad_x(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let range = lane_fours(workgroup, lane, p.fours);
    for (var i = range.x; i < range.y; i += WG) {
        let v = inner(vec4f(x[i]));
        var slope: vec4f;
        if TANH {
            let s = phi_tanh(v);
            let density = 2.0 * SQRT_2_OVER_PI * (1.0 + 3.0 * CUBE * v * v) * s * phi_tanh(-v);
            slope = s + v * density;
        } else {
            slope = phi_exact(v) + v * (0.5 * SQRT_2_OVER_PI * exp(-0.5 * v * v));
        }
        d_x[i] = E4(vec4f(d_y[i]) * slope);
    }
}
