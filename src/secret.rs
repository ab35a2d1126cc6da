//! Values that must not be seen: secrets, tokens, client secrets. It knows nothing of where they come
//! from or where they go; it only keeps them out of print and wipes them.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;

use zeroize::Zeroizing;

/// A secret's bytes. Cheap to clone (the bytes are shared), never printed, and zeroed when the last
/// clone is dropped. There is no `Display` and no `Serialize` on purpose: [`SecretValue::expose`] is the
/// only way to the bytes, so that `grep expose` lists every place where a value can leave.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Rc<Zeroizing<Vec<u8>>>);

impl SecretValue {
    /// Takes the bytes over; they are zeroed with this value.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Rc::new(Zeroizing::new(bytes.into())))
    }

    /// The bytes themselves, for the place that has to write or send them.
    #[inline]
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(not shown)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_show_the_value() {
        let secret = SecretValue::new(b"hunter2".to_vec());
        assert_eq!(format!("{secret:?}"), "SecretValue(not shown)");
        assert_eq!(secret.expose(), b"hunter2");
    }
}
