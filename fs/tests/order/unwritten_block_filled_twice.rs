// error: use of moved value: `place`
fn case<P: Pmem>(place: Unwritten<'_, P>, stage: &mut Stage<Written>) {
    let _ = place.fill(stage, core::iter::empty());
    let _ = place.fill(stage, core::iter::empty());
}
