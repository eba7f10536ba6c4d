// error: expected `&Fresh`, found `&Block`
fn case<P: Pmem>(pmem: &mut P, node: Block, mut stage: Stage<Written>) {
    stage.store_entry(pmem, &node, Content::Node(1), 0, 1);
}
