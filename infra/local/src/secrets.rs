//! The app's secret and the verify token of its webhooks: those of the environment, or made up for the sandbox.

use std::io::{self, Write};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use shared::secrets::{self, read_file};
use tempfile::NamedTempFile;
use uuid::Uuid;

const APP_SECRET: &str = "APP_SECRET";
const VERIFY_TOKEN: &str = "WEBHOOK_VERIFY_TOKEN";

/// Why there are none. No message shows one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} must be file:PATH: the sandbox has to know it, too")]
    NotAFile(&'static str),
    #[error("{variable} cannot be used")]
    Unusable {
        variable: &'static str,
        #[source]
        source: secrets::Error,
    },
    #[error("a secret for the sandbox cannot be written")]
    Unwritable(#[source] io::Error),
}

/// What the sandbox and the functions both know.
#[derive(Debug)]
pub struct Secrets {
    pub app_secret: Secret,
    pub verify_token: Secret,
}

impl Secrets {
    /// Takes those that the functions are given anyway, and makes up the others.
    pub fn for_sandbox(environment: impl Fn(&str) -> Option<String>) -> Result<Secrets, Error> {
        let secret = |variable: &'static str| match environment(variable) {
            Some(value) if !value.is_empty() => Secret::read(variable, &value),
            Some(_) | None => Secret::make_up(variable),
        };
        Ok(Secrets {
            app_secret: secret(APP_SECRET)?,
            verify_token: secret(VERIFY_TOKEN)?,
        })
    }

    /// The variables by which the functions find what was made up.
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let secrets = [&self.app_secret, &self.verify_token].into_iter();
        secrets.filter_map(|secret| {
            let path = secret.made_up.as_ref()?.path();
            Some((
                secret.variable.to_owned(),
                format!("file:{}", path.display()),
            ))
        })
    }
}

/// One of them.
#[derive(Debug)]
pub struct Secret {
    pub value: SecretString,
    variable: &'static str,
    /// The file that the functions read, if it is ours to remove.
    made_up: Option<NamedTempFile>,
}

impl Secret {
    fn read(variable: &'static str, value: &str) -> Result<Secret, Error> {
        let path = value
            .strip_prefix("file:")
            .ok_or(Error::NotAFile(variable))?;
        let value =
            read_file(Path::new(path)).map_err(|source| Error::Unusable { variable, source })?;
        Ok(Secret {
            value,
            variable,
            made_up: None,
        })
    }

    fn make_up(variable: &'static str) -> Result<Secret, Error> {
        let value = SecretString::from(Uuid::new_v4().simple().to_string());
        let file = write_temporary(value.expose_secret().as_bytes()).map_err(Error::Unwritable)?;
        Ok(Secret {
            value,
            variable,
            made_up: Some(file),
        })
    }
}

/// Writes a file that only we may read, and that is removed when dropped.
pub fn write_temporary(content: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new().prefix("oncecast-").tempfile()?;
    file.write_all(content)?;
    file.flush()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_the_environment_lacks_is_made_up_in_a_private_file() {
        use std::os::unix::fs::PermissionsExt;

        let secrets = Secrets::for_sandbox(|_| None).unwrap();

        let variables = BTreeMap::from_iter(secrets.variables());
        assert_eq!(Vec::from_iter(variables.keys()), [APP_SECRET, VERIFY_TOKEN]);
        for secret in [&secrets.app_secret, &secrets.verify_token] {
            let read = Secret::read(secret.variable, &variables[secret.variable]).unwrap();
            assert_eq!(read.value.expose_secret(), secret.value.expose_secret());
            let file = secret.made_up.as_ref().unwrap().as_file();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let [app_secret, verify_token] = [secrets.app_secret, secrets.verify_token];
        assert_ne!(
            app_secret.value.expose_secret(),
            verify_token.value.expose_secret()
        );
    }

    #[test]
    fn what_the_environment_has_is_used() {
        let file = write_temporary(b"the-apps-secret\n").unwrap();
        let variable = format!("file:{}", file.path().display());
        let environment = |name: &str| (name == APP_SECRET).then(|| variable.clone());

        let secrets = Secrets::for_sandbox(environment).unwrap();

        assert_eq!(secrets.app_secret.value.expose_secret(), "the-apps-secret");
        let names: Vec<String> = secrets.variables().map(|(name, _)| name).collect();
        assert_eq!(names, [VERIFY_TOKEN]);
    }

    #[test]
    fn what_cannot_be_used_is_named_but_not_shown() {
        let file = write_temporary(b"two words").unwrap();
        let unreadable = format!("file:{}", file.path().display());
        for value in ["two words", &unreadable] {
            let environment = |name: &str| (name == VERIFY_TOKEN).then(|| value.to_owned());

            let error = Secrets::for_sandbox(environment).unwrap_err();

            assert!(error.to_string().contains(VERIFY_TOKEN));
            assert!(!format!("{error:?} {error}").contains("two words"));
        }
    }
}
