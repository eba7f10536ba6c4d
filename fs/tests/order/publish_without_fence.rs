// error: expected `&Stage<Durable>`, found `&Stage<Flushed>`
fn case<P: Pmem>(place: Exclusive<'_, P>, pmem: &mut P, stage: Stage<Written>) {
    let stage = stage.flush(pmem);
    let _ = place.publish(Content::Node(1), &[(0, 1)], &stage, Vec::new());
}
