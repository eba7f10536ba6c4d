// error: expected `Pointer`, found `Unwritten<'_, P>`
fn case<P: Pmem>(place: Exclusive<'_, P>) -> u64 {
    let pointer: Pointer = place.into_unwritten();
    pointer.value()
}
