//! The table of settings: a row has all that the command line, the environment, the help, the README and the reports
//! say of one.

use super::kinds::{Complaint, Kind};

/// One setting of a `T`: a row of the table.
pub struct Setting<T> {
    /// Its name: that of its flag, without the dashes, and its name in the reports.
    pub flag: &'static str,
    /// The variable that sets it when the flag is absent.
    pub variable: &'static str,
    /// What the help shows in place of a default that depends on the machine.
    pub default: Option<&'static str>,
    /// What it means, in a line.
    pub help: &'static str,
    /// Where its value is kept, and of what kind it is.
    pub field: Box<dyn Field<T>>,
}

/// A field of a `T`, together with the [kind](Kind) of its value; the methods are those of the kind.
#[allow(missing_docs, reason = "Kind has them")]
pub trait Field<T> {
    fn placeholder(&self) -> &'static str;
    fn expected(&self) -> String;
    fn implied(&self) -> Option<&'static str>;
    fn split(&self, variable: &str) -> Option<Vec<String>>;
    /// Reads the text and checks what it is then.
    ///
    /// # Errors
    /// It is no value of this kind, or out of bounds.
    fn set(&self, of: &mut T, text: &str) -> Result<(), Complaint>;
    fn clear(&self, of: &mut T);
    fn show(&self, of: &T) -> String;
    /// Checks the value against its bounds.
    ///
    /// # Errors
    /// It is out of bounds.
    fn check(&self, of: &T) -> Result<(), Complaint>;
}

/// The field of a `T` that two functions find, and its kind.
pub struct At<T, K: Kind> {
    /// What it holds.
    pub kind: K,
    /// Finds it to be read.
    pub get: fn(&T) -> &K::Value,
    /// Finds it to be written.
    pub get_mut: fn(&mut T) -> &mut K::Value,
}

impl<T, K: Kind> Field<T> for At<T, K> {
    fn placeholder(&self) -> &'static str {
        self.kind.placeholder()
    }

    fn expected(&self) -> String {
        self.kind.expected()
    }

    fn implied(&self) -> Option<&'static str> {
        self.kind.implied()
    }

    fn split(&self, variable: &str) -> Option<Vec<String>> {
        self.kind.split(variable)
    }

    fn set(&self, of: &mut T, text: &str) -> Result<(), Complaint> {
        let value = (self.get_mut)(of);
        self.kind.put(value, self.kind.parse(text)?);
        self.kind.check(value)
    }

    fn clear(&self, of: &mut T) {
        self.kind.clear((self.get_mut)(of));
    }

    fn show(&self, of: &T) -> String {
        self.kind.show((self.get)(of))
    }

    fn check(&self, of: &T) -> Result<(), Complaint> {
        self.kind.check((self.get)(of))
    }
}

impl<P: 'static> Setting<P> {
    /// The same setting of a `T`, which has a `P` in it.
    #[must_use]
    pub fn within<T: AsRef<P> + AsMut<P>>(self) -> Setting<T> {
        let Self {
            flag,
            variable,
            default,
            help,
            field,
        } = self;
        Setting {
            flag,
            variable,
            default,
            help,
            field: Box::new(Within(field)),
        }
    }
}

/// The field of a part of a whole. One such type for all fields is what keeps each kind from being compiled for each whole.
struct Within<P>(Box<dyn Field<P>>);

impl<T: AsRef<P> + AsMut<P>, P> Field<T> for Within<P> {
    fn placeholder(&self) -> &'static str {
        self.0.placeholder()
    }

    fn expected(&self) -> String {
        self.0.expected()
    }

    fn implied(&self) -> Option<&'static str> {
        self.0.implied()
    }

    fn split(&self, variable: &str) -> Option<Vec<String>> {
        self.0.split(variable)
    }

    fn set(&self, of: &mut T, text: &str) -> Result<(), Complaint> {
        self.0.set(of.as_mut(), text)
    }

    fn clear(&self, of: &mut T) {
        self.0.clear(of.as_mut());
    }

    fn show(&self, of: &T) -> String {
        self.0.show(of.as_ref())
    }

    fn check(&self, of: &T) -> Result<(), Complaint> {
        self.0.check(of.as_ref())
    }
}

/// Makes a struct of settings, with its defaults, and its table, of rows as those in `settings/mod.rs`. What `also` names
/// checks several of them together.
macro_rules! define_settings {
    ($(#[$about:meta])* $name:ident $(, also $together:path)?; $(
        $(#[$doc:meta])*
        $how:ident $field:ident: $type:ty = $value:expr => {
            flag: $flag:literal, variable: $variable:literal, kind: $kind:expr,
            $(default: $default:literal,)? help: $help:literal $(,)?
        }
    )*) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Default for $name {
            /// The documented defaults; they are always valid.
            fn default() -> Self {
                Self { $($field: $value,)* }
            }
        }

        impl $name {
            /// Checks every setting against its bounds.
            ///
            /// # Errors
            ///
            /// The first setting, in the order of the fields, that is out of its bounds; or several that do not fit
            /// together.
            pub fn validate(&self) -> Result<(), $crate::ConfigError> {
                table().iter().try_for_each(|setting| {
                    let checked = setting.field.check(self);
                    checked.map_err(|complaint| complaint.of(setting.flag, || setting.field.show(self)))
                })?;
                $($together(self)?;)?
                Ok(())
            }
        }

        /// The rows of the table, in the order of the fields.
        #[must_use]
        pub fn table() -> Vec<$crate::settings::Setting<$name>> {
            vec![$($crate::settings::Setting {
                flag: $flag,
                variable: $variable,
                default: None$(.or(Some($default)))?,
                help: $help,
                field: Box::new($crate::settings::At {
                    kind: $kind,
                    get: |of: &$name| &of.$field,
                    get_mut: |of: &mut $name| &mut of.$field,
                }),
            },)*]
        }
    };
}

/// Makes [`Config`](super::Config) and [`table`](super::table) of the rows in `settings/mod.rs`.
macro_rules! define_config {
    ($($rows:tt)*) => {
        $crate::settings::define_settings! {
            /// Every setting of a server. Plain data: [`validate`](Config::validate) says whether it makes sense.
            ///
            /// All durations are at most 24 hours. Some defaults are measured on the machine.
            Config, also paths::all_differ;
            $($rows)*
        }
    };
}

pub(super) use define_config;
pub(crate) use define_settings;
