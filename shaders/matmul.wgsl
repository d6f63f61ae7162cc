// Products of matrices, one for each of a batch: y = scale * A B. Each invocation has four rows by four columns of the
// result in registers and goes along the depth in steps of four: eight loads of four for 64 products. The operands and
// the result are declared by libraries; a matrix lies at outer * *_outer + inner * *_inner, its lines *_line apart.

struct Params {
    rows: u32, // of a result
    columns: u32,
    depth: u32,
    inner: u32, // matrices for each outer number
    a_outer: u32,
    a_inner: u32,
    a_line: u32,
    b_outer: u32,
    b_inner: u32,
    b_line: u32,
    y_outer: u32,
    y_inner: u32,
    y_line: u32,
    scale: f32,
}

const WG: u32 = 64u;
const SIDE: u32 = 8u; // a workgroup has SIDE by SIDE invocations

/// Rows `row` to `row + 3` of A at depths `k` to `k + 3`, zero outside: a column of the result for each depth.
fn left(base: u32, row: u32, k: u32) -> mat4x4f {
    var m = mat4x4f();
    let lines = select(vec2u(row, p.rows), vec2u(k, p.depth), TRANSPOSE_A);
    let along = select(vec2u(k, p.depth), vec2u(row, p.rows), TRANSPOSE_A);
    let at = base + lines.x * p.a_line + along.x;
    let there = along.y - along.x;
    m[0] = a_four(at, there);
    if lines.x + 1u < lines.y {
        m[1] = a_four(at + p.a_line, there);
    }
    if lines.x + 2u < lines.y {
        m[2] = a_four(at + 2u * p.a_line, there);
    }
    if lines.x + 3u < lines.y {
        m[3] = a_four(at + 3u * p.a_line, there);
    }
    if TRANSPOSE_A {
        return m;
    }
    return transpose(m);
}

/// Depths `k` to `k + 3` of columns `column` to `column + 3` of B, zero outside: a column of the result for each depth.
fn right(base: u32, k: u32, column: u32) -> mat4x4f {
    var m = mat4x4f();
    let lines = select(vec2u(k, p.depth), vec2u(column, p.columns), TRANSPOSE_B);
    let along = select(vec2u(column, p.columns), vec2u(k, p.depth), TRANSPOSE_B);
    let at = base + lines.x * p.b_line + along.x;
    let there = along.y - along.x;
    m[0] = b_four(at, there);
    if lines.x + 1u < lines.y {
        m[1] = b_four(at + p.b_line, there);
    }
    if lines.x + 2u < lines.y {
        m[2] = b_four(at + 2u * p.b_line, there);
    }
    if lines.x + 3u < lines.y {
        m[3] = b_four(at + 3u * p.b_line, there);
    }
    if TRANSPOSE_B {
        return transpose(m);
    }
    return m;
}

@compute @workgroup_size(WG)
fn forward(@builtin(workgroup_id) workgroup: vec3u, @builtin(local_invocation_index) lane: u32) {
    let tiles = (p.columns + 4u * SIDE - 1u) / (4u * SIDE);
    let tile = group_index(workgroup);
    let row = 4u * (tile / tiles * SIDE + lane / SIDE);
    let column = 4u * (tile % tiles * SIDE + lane % SIDE);
    if row >= p.rows || column >= p.columns {
        return;
    }
    let outer = workgroup.z / p.inner;
    let inner = workgroup.z % p.inner;
    let a_base = outer * p.a_outer + inner * p.a_inner;
    let b_base = outer * p.b_outer + inner * p.b_inner;
    var y0 = vec4f();
    var y1 = vec4f();
    var y2 = vec4f();
    var y3 = vec4f();
    for (var k = 0u; k < p.depth; k += 4u) {
        let l = left(a_base, row, k);
        let r = right(b_base, k, column);
        y0 = fma(vec4f(l[3].x), r[3], fma(vec4f(l[2].x), r[2], fma(vec4f(l[1].x), r[1], fma(vec4f(l[0].x), r[0], y0))));
        y1 = fma(vec4f(l[3].y), r[3], fma(vec4f(l[2].y), r[2], fma(vec4f(l[1].y), r[1], fma(vec4f(l[0].y), r[0], y1))));
        y2 = fma(vec4f(l[3].z), r[3], fma(vec4f(l[2].z), r[2], fma(vec4f(l[1].z), r[1], fma(vec4f(l[0].z), r[0], y2))));
        y3 = fma(vec4f(l[3].w), r[3], fma(vec4f(l[2].w), r[2], fma(vec4f(l[1].w), r[1], fma(vec4f(l[0].w), r[0], y3))));
    }
    let at = outer * p.y_outer + inner * p.y_inner + row * p.y_line + column;
    let room = p.columns - column;
    put_four(at, room, p.scale * y0);
    if row + 1u < p.rows {
        put_four(at + p.y_line, room, p.scale * y1);
    }
    if row + 2u < p.rows {
        put_four(at + 2u * p.y_line, room, p.scale * y2);
    }
    if row + 3u < p.rows {
        put_four(at + 3u * p.y_line, room, p.scale * y3);
    }
}
