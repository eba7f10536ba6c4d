// error: expected `Published<Durable>`, found `Published<Flushed>`
fn case<P: Pmem>(blocks: &mut Blocks<P>, pmem: &mut P, published: Published<Written>) {
    let _ = blocks.release(published.flush(pmem));
}
