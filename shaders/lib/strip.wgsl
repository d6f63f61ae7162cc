// A strip of a depthwise convolution: four channels of COLUMNS neighbouring positions of a map, going down ROWS rows. What
// the windows of one row cover stays in registers while they move down, so a strip loads each pixel once, and the filter
// once too. The kernel says how large a window is (WINDOW_H by WINDOW_W pixels, all of a row's together) and which map
// it moves over.

alias Row = array<vec4f, WINDOW_W>;
alias Taps = array<array<vec4f, p.s>, p.r>;

/// A row of a window from column `left` on, zero outside of the map. Positions before the first wrap around to huge ones.
fn load_row(image: u32, h: u32, left: u32, channel: u32) -> Row {
    var row: Row;
    let first = ((image * map_h() + h) * map_w() + left) * p.c + channel;
    for (var x = 0u; x < WINDOW_W; x++) {
        let inside = h < map_h() && left + x < map_w();
        let at = select(0u, first + x * p.c, inside);
        row[x] = select(vec4f(), load_activation(at), inside);
    }
    return row;
}

/// Which strip of which image an index means.
struct Place {
    image: u32,
    row: u32,
    column: u32,
}

/// The first position of a strip, in a grid of `down` by `across` positions an image.
fn place(strip: u32, down: u32, across: u32) -> Place {
    let strips_across = (across + COLUMNS - 1u) / COLUMNS;
    let strips_down = (down + ROWS - 1u) / ROWS;
    return Place(
        strip / strips_across / strips_down,
        strip / strips_across % strips_down * ROWS,
        strip % strips_across * COLUMNS,
    );
}
