// error: expected `&Fresh`, found `&Block`
fn case<P: Pmem>(pmem: &mut P, node: Block, mut stage: Stage<Written>) {
    stage.store_entry(pmem, &node, 0, 1);
}
