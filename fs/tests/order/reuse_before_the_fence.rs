// error: the trait bound `Published<Flushed>: DurableChange` is not satisfied
fn case<P: Pmem>(blocks: &mut Blocks<P>, pmem: &mut P, published: Published<Written>) {
    let _ = blocks.release(published.flush(pmem));
}
