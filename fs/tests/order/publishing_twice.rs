// error: use of moved value: `place`
fn case<P: Pmem>(place: Exclusive<'_, P>, stage: &Stage<Durable>) {
    let _ = place.publish(Content::Node(1), &[(0, 1)], stage, Vec::new());
    let _ = place.publish(Content::Node(1), &[(1, 1)], stage, Vec::new());
}
