// error: no method named `fence` found for struct `Stage<Written>`
fn case<P: Pmem>(pmem: &mut P, stage: Stage<Written>) {
    let _ = stage.fence(pmem);
}
