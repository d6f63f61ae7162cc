// An invocation's rows are a run.

fn keep_moments(run: u32, column: u32, moments: Moments) {
    if moments.count > 0.0 && column < width() {
        store_moments(run, column, mean_of(moments), m2_of(moments));
    }
}
