//! Metadata contexts: the views in which block status says what ranges are.

/// A metadata context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Context {
    /// Holes and zeros.
    Allocation,
    /// What any other position shares: bit 0.
    Sharing,
}

impl Context {
    /// All of them.
    pub const ALL: [Context; 2] = [Context::Allocation, Context::Sharing];

    /// Its name.
    pub fn name(self) -> &'static [u8] {
        match self {
            Context::Allocation => b"base:allocation",
            Context::Sharing => b"x-umbra:sharing",
        }
    }

    /// Its number on the wire, never 0.
    pub fn id(self) -> u32 {
        self as u32 + 1
    }

    /// Whether a query of a list means it: all of a namespace, or its name.
    pub fn is_listed_by(self, query: &[u8]) -> bool {
        let namespace = self.name().split_inclusive(|b| *b == b':').next();
        query == self.name() || Some(query) == namespace
    }
}

/// Some contexts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contexts(u8);

impl Contexts {
    /// With another one.
    #[must_use]
    pub fn with(self, context: Context) -> Self {
        Contexts(self.0 | 1 << context as u8)
    }
    /// Whether it is among them.
    pub fn has(self, context: Context) -> bool {
        self.0 >> context as u8 & 1 != 0
    }
    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Those of these that the ids of a request name; each once.
    pub fn named_by(self, ids: &[u8]) -> Option<Contexts> {
        let mut named = Contexts::default();
        for id in ids.chunks_exact(4) {
            let context =
                Context::ALL.into_iter().find(|c| self.has(*c) && c.id().to_be_bytes() == id)?;
            if named.has(context) {
                return None;
            }
            named = named.with(context);
        }
        Some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_mean_a_namespace_or_a_name() {
        assert!(
            Context::Allocation.is_listed_by(b"base:")
                && Context::Allocation.is_listed_by(b"base:allocation")
        );
        assert!(
            !Context::Allocation.is_listed_by(b"base")
                && !Context::Allocation.is_listed_by(b"base:a")
        );
        assert!(
            Context::Sharing.is_listed_by(b"x-umbra:") && !Context::Sharing.is_listed_by(b"base:")
        );
    }

    #[test]
    fn ids_name_each_selected_context_once() {
        let both = Contexts::default().with(Context::Allocation).with(Context::Sharing);
        let one = Contexts::default().with(Context::Sharing);
        assert_eq!(both.named_by(&[0, 0, 0, 2]), Some(one));
        assert_eq!(both.named_by(&[0, 0, 0, 2, 0, 0, 0, 1]), Some(both));
        assert_eq!(both.named_by(&[0, 0, 0, 2, 0, 0, 0, 2]), None);
        assert_eq!(both.named_by(&[0, 0, 0, 3]), None);
        assert_eq!(one.named_by(&[0, 0, 0, 1]), None);
        assert_eq!(one.named_by(&[]), Some(Contexts::default()));
    }
}
