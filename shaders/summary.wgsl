// What a tensor holds, in five numbers, added to a record of what came before. In a fixed order, in two stages: each
// workgroup of `parts` takes a contiguous run of elements, and one workgroup of `merge` what these have found.

struct Params {
    count: u32, // parts: elements; merge: runs
    run: u32, // elements of a run
}

/// Of some elements; least, greatest and the mean magnitude are of the finite ones.
struct Summary {
    elements: f32,
    bad: f32, // those that are not finite
    least: f32,
    greatest: f32,
    magnitude: f32,
}

const WG: u32 = 64u;
const FIVE: u32 = 5u;

// parts
@group(0) @binding(1) var<storage, read> x: array<E>; // [count]
@group(0) @binding(2) var<storage, read_write> found: array<f32>; // [runs, FIVE]

// merge
@group(0) @binding(1) var<storage, read> each: array<f32>; // [runs, FIVE]
@group(0) @binding(2) var<storage, read_write> record: array<f32>; // [FIVE]

var<workgroup> lanes: array<Summary, WG>;

fn united(a: Summary, b: Summary) -> Summary {
    let elements = a.elements + b.elements;
    let bad = a.bad + b.bad;
    if a.elements == a.bad {
        return Summary(elements, bad, b.least, b.greatest, b.magnitude);
    }
    if b.elements == b.bad {
        return Summary(elements, bad, a.least, a.greatest, a.magnitude);
    }
    // Means, since sums of large numbers would not be finite.
    let share = (b.elements - b.bad) / (elements - bad);
    let magnitude = fma(share, b.magnitude - a.magnitude, a.magnitude);
    return Summary(elements, bad, min(a.least, b.least), max(a.greatest, b.greatest), magnitude);
}

/// What all lanes have found, in lane 0.
fn unite_lanes(lane: u32, own: Summary) -> Summary {
    lanes[lane] = own;
    workgroupBarrier();
    for (var half = WG / 2u; half > 0u; half /= 2u) {
        if lane < half {
            lanes[lane] = united(lanes[lane], lanes[lane + half]);
        }
        workgroupBarrier();
    }
    return lanes[0];
}

@compute @workgroup_size(WG)
fn parts(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(workgroup);
    let end = min(p.count, (group + 1u) * p.run);
    var own = Summary();
    for (var i = group * p.run + lane; i < end; i += WG) {
        let v = f32(x[i]);
        // By bits, as in finite.wgsl.
        let bad = (bitcast<u32>(v) & 0x7f800000u) == 0x7f800000u;
        if bad {
            own = united(own, Summary(1.0, 1.0, 0.0, 0.0, 0.0));
        } else {
            own = united(own, Summary(1.0, 0.0, v, v, abs(v)));
        }
    }
    let all = unite_lanes(lane, own);
    if lane == 0u && group * p.run < p.count {
        let at = FIVE * group;
        found[at] = all.elements;
        found[at + 1u] = all.bad;
        found[at + 2u] = all.least;
        found[at + 3u] = all.greatest;
        found[at + 4u] = all.magnitude;
    }
}

@compute @workgroup_size(WG)
fn merge(@builtin(local_invocation_index) lane: u32) {
    var own = Summary();
    for (var i = lane; i < p.count; i += WG) {
        let at = FIVE * i;
        own = united(own, Summary(each[at], each[at + 1u], each[at + 2u], each[at + 3u], each[at + 4u]));
    }
    let all = unite_lanes(lane, own);
    if lane == 0u {
        let before = Summary(record[0], record[1], record[2], record[3], record[4]);
        let now = united(before, all);
        record[0] = now.elements;
        record[1] = now.bad;
        record[2] = now.least;
        record[3] = now.greatest;
        record[4] = now.magnitude;
    }
}
