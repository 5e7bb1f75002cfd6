//! The app secret and the verify token of webhooks, which the sandbox shares with the functions: taken from the
//! environment, or else generated.

use std::io::{self, Write};
use std::path::Path;

use secrecy::{ExposeSecret, SecretString};
use shared::runtime::secrets::{self, read_file};
use tempfile::NamedTempFile;
use uuid::Uuid;

const APP_SECRET: &str = "APP_SECRET";
const VERIFY_TOKEN: &str = "WEBHOOK_VERIFY_TOKEN";

/// Failure to get a secret. No message contains the secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    #[error("{0} must be file:PATH, because the sandbox has to read the secret too")]
    NotAFile(&'static str),
    #[error("{variable} cannot be used")]
    Unusable {
        variable: &'static str,
        #[source]
        source: secrets::Error,
    },
    #[error("a generated secret cannot be written to a temporary file")]
    Unwritable(#[source] io::Error),
}

/// The secrets that the sandbox and the functions share.
#[derive(Debug)]
pub struct SharedSecrets {
    pub app_secret: SharedSecret,
    pub verify_token: SharedSecret,
}

impl SharedSecrets {
    /// Reads the secrets that the functions' environment names, and generates the others.
    ///
    /// # Errors
    ///
    /// Fails if a named secret is not in a file that this process can read, or if a generated one cannot be written.
    pub fn for_sandbox(environment: impl Fn(&str) -> Option<String>) -> Result<SharedSecrets, SecretsError> {
        let secret = |variable: &'static str| match environment(variable) {
            Some(value) if !value.is_empty() => SharedSecret::read(variable, &value),
            Some(_) | None => SharedSecret::generate(variable),
        };
        Ok(SharedSecrets {
            app_secret: secret(APP_SECRET)?,
            verify_token: secret(VERIFY_TOKEN)?,
        })
    }

    /// Returns the variables that point the functions to the generated secrets.
    pub fn variables(&self) -> impl Iterator<Item = (String, String)> {
        let secrets = [&self.app_secret, &self.verify_token].into_iter();
        secrets.filter_map(|secret| {
            let path = secret.generated.as_ref()?.path();
            Some((secret.variable.to_owned(), format!("file:{}", path.display())))
        })
    }
}

/// A secret, and the environment variable that points the functions to it.
#[derive(Debug)]
pub struct SharedSecret {
    pub value: SecretString,
    variable: &'static str,
    /// The file of a generated secret, which is removed with this value.
    generated: Option<NamedTempFile>,
}

impl SharedSecret {
    fn read(variable: &'static str, value: &str) -> Result<SharedSecret, SecretsError> {
        let path = value.strip_prefix("file:").ok_or(SecretsError::NotAFile(variable))?;
        let value = read_file(Path::new(path)).map_err(|source| SecretsError::Unusable { variable, source })?;
        Ok(SharedSecret {
            value,
            variable,
            generated: None,
        })
    }

    fn generate(variable: &'static str) -> Result<SharedSecret, SecretsError> {
        let value = SecretString::from(Uuid::new_v4().simple().to_string());
        let file = write_temporary(value.expose_secret().as_bytes()).map_err(SecretsError::Unwritable)?;
        Ok(SharedSecret {
            value,
            variable,
            generated: Some(file),
        })
    }
}

/// Writes a temporary file that only this user may read and that is removed when dropped.
///
/// # Errors
///
/// Fails if the file cannot be created or written.
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
    fn missing_secrets_are_generated_in_private_files() {
        use std::os::unix::fs::PermissionsExt;

        let secrets = SharedSecrets::for_sandbox(|_| None).unwrap();

        let variables = BTreeMap::from_iter(secrets.variables());
        assert_eq!(Vec::from_iter(variables.keys()), [APP_SECRET, VERIFY_TOKEN]);
        for secret in [&secrets.app_secret, &secrets.verify_token] {
            let read = SharedSecret::read(secret.variable, &variables[secret.variable]).unwrap();
            assert_eq!(read.value.expose_secret(), secret.value.expose_secret());
            let file = secret.generated.as_ref().unwrap().as_file();
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        let [app_secret, verify_token] = [secrets.app_secret, secrets.verify_token];
        assert_ne!(app_secret.value.expose_secret(), verify_token.value.expose_secret());
    }

    #[test]
    fn secret_of_the_environment_is_used() {
        let file = write_temporary(b"the-apps-secret\n").unwrap();
        let variable = format!("file:{}", file.path().display());
        let environment = |name: &str| (name == APP_SECRET).then(|| variable.clone());

        let secrets = SharedSecrets::for_sandbox(environment).unwrap();

        assert_eq!(secrets.app_secret.value.expose_secret(), "the-apps-secret");
        let names: Vec<String> = secrets.variables().map(|(name, _)| name).collect();
        assert_eq!(names, [VERIFY_TOKEN]);
    }

    #[test]
    fn unusable_secret_is_named_but_not_shown() {
        let file = write_temporary(b"two words").unwrap();
        let unreadable = format!("file:{}", file.path().display());
        for value in ["two words", &unreadable] {
            let environment = |name: &str| (name == VERIFY_TOKEN).then(|| value.to_owned());

            let error = SharedSecrets::for_sandbox(environment).unwrap_err();

            assert!(error.to_string().contains(VERIFY_TOKEN));
            assert!(!format!("{error:?} {error}").contains("two words"));
        }
    }
}
