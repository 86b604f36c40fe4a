//! Settings with a fixed set of words.

/// Defines an enum whose variants are words of the configuration: `WORDS` lists them, `as_str` and `Display` return
/// one, and `FromStr` and serde parse one. The error for an unknown word lists the known ones.
#[macro_export]
macro_rules! choices {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, $crate::serde::Serialize, $crate::serde::Deserialize,
            $crate::schemars::JsonSchema,
        )]
        #[serde(crate = "::afterimage_learn::serde")]
        #[schemars(crate = "::afterimage_learn::schemars")]
        $vis enum $name { $($(#[$doc])* #[serde(rename = $word)] $variant,)+ }

        impl $name {
            /// All words, in the order of the variants.
            $vis const WORDS: &'static [&'static str] = &[$($word),+];
            /// All variants.
            $vis const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// The word of this variant.
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                Self::ALL.into_iter().find(|choice| choice.as_str() == text)
                    .ok_or_else(|| format!("{text:?}: must be one of {}", Self::WORDS.join(", ")))
            }
        }
    };
}
