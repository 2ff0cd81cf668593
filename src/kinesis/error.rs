//! What the Kinesis door refuses with: AWS's error names, and its texts where several handlers say the same.
//!
//! Handlers return [`Error`]; `dispatch` turns it into the answer. Texts are AWS's wherever an answer of AWS's was
//! recorded (terraform, kinesalite's and moto's tests, issues of AWS's clients); the others say what is the matter.

use crate::broker::CatalogError;
use crate::http::Failure;
use crate::model::attributes::Transition;
use crate::store::StoreError;
use crate::store::crypt::KeyError;

use super::arn::Home;

/// One variant for each of AWS's errors, with its message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Validation(String),
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    ResourceNotFound(String),
    #[error("{0}")]
    ResourceInUse(String),
    #[error("{0}")]
    LimitExceeded(String),
    #[error("{0}")]
    ProvisionedThroughputExceeded(String),
    #[error("{0}")]
    AccessDenied(String),
    #[error("{0}")]
    ExpiredIterator(String),
    #[error("{0}")]
    ExpiredNextToken(String),
    #[error("{0}")]
    KmsNotFound(String),
    #[error("{0}")]
    KmsDisabled(String),
    #[error("{0}")]
    KmsInvalidState(String),
    #[error("{0}")]
    KmsAccessDenied(String),
    /// The request would have gone well, but was only to be tried.
    #[error("The request was rejected because the DryRun parameter was specified.")]
    DryRun,
    /// Something that is not the client's fault; the log says what.
    #[error("internal failure")]
    Internal,
}

impl Error {
    /// AWS's name.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Validation(_) => "ValidationException",
            Error::InvalidArgument(_) => "InvalidArgumentException",
            Error::ResourceNotFound(_) => "ResourceNotFoundException",
            Error::ResourceInUse(_) => "ResourceInUseException",
            Error::LimitExceeded(_) => "LimitExceededException",
            Error::ProvisionedThroughputExceeded(_) => "ProvisionedThroughputExceededException",
            Error::AccessDenied(_) => "AccessDeniedException",
            Error::ExpiredIterator(_) => "ExpiredIteratorException",
            Error::ExpiredNextToken(_) => "ExpiredNextTokenException",
            Error::KmsNotFound(_) => "KMSNotFoundException",
            Error::KmsDisabled(_) => "KMSDisabledException",
            Error::KmsInvalidState(_) => "KMSInvalidStateException",
            Error::KmsAccessDenied(_) => "KMSAccessDeniedException",
            Error::DryRun => "DryRunOperationException",
            Error::Internal => "InternalFailure",
        }
    }

    fn message(self) -> Option<String> {
        match self {
            Error::Validation(text)
            | Error::InvalidArgument(text)
            | Error::ResourceNotFound(text)
            | Error::ResourceInUse(text)
            | Error::LimitExceeded(text)
            | Error::ProvisionedThroughputExceeded(text)
            | Error::AccessDenied(text)
            | Error::ExpiredIterator(text)
            | Error::ExpiredNextToken(text)
            | Error::KmsNotFound(text)
            | Error::KmsDisabled(text)
            | Error::KmsInvalidState(text)
            | Error::KmsAccessDenied(text) => Some(text),
            Error::DryRun => Some(self.to_string()),
            Error::Internal => None,
        }
    }

    pub fn stream_not_found(home: &Home, stream: &str) -> Error {
        Error::ResourceNotFound(format!("Stream {stream} under account {} not found.", home.account))
    }

    pub fn stream_not_active(home: &Home, stream: &str, state: Transition) -> Error {
        let state = status(Some(state));
        Error::ResourceInUse(format!(
            "Stream {stream} under account {} not ACTIVE, instead in state {state}",
            home.account
        ))
    }

    /// Where a shard is to be changed.
    pub fn shard_not_found(home: &Home, stream: &str, shard: &str) -> Error {
        Error::ResourceNotFound(format!(
            "Could not find shard {shard} in stream {stream} under account {}.",
            home.account
        ))
    }

    /// Where a shard is to be read.
    pub fn shard_does_not_exist(home: &Home, stream: &str, shard: &str) -> Error {
        Error::ResourceNotFound(format!(
            "Shard {shard} in stream {stream} under account {} does not exist",
            home.account
        ))
    }

    pub fn on_demand(home: &Home, stream: &str) -> Error {
        Error::Validation(format!(
            "Request is invalid. Stream {stream} under account {} is in On-Demand mode.",
            home.account
        ))
    }

    /// With KMS's texts where it has one for the case.
    pub fn key(error: &KeyError) -> Error {
        match error {
            KeyError::NotFound(name) if name.starts_with("alias/") || name.contains(":alias/") => {
                Error::KmsNotFound(format!("Alias {name} is not found."))
            }
            KeyError::NotFound(name) => Error::KmsNotFound(format!("Key '{name}' does not exist")),
            KeyError::Disabled(id) => Error::KmsDisabled(format!("{id} is disabled.")),
            KeyError::Absent(_) => Error::KmsAccessDenied(
                "The ciphertext refers to a customer master key that does not exist, does not exist in this region, or \
                 you are not allowed to access."
                    .to_owned(),
            ),
            KeyError::Mismatch(_) | KeyError::Lost(_) => Error::KmsInvalidState(error.to_string()),
        }
    }

    pub fn internal(error: &StoreError) -> Error {
        tracing::error!(%error, "a Kinesis request failed");
        Error::Internal
    }
}

/// AWS's word for the state of a stream or consumer.
pub fn status(transition: Option<Transition>) -> &'static str {
    match transition {
        None => "ACTIVE",
        Some(Transition::Creating) => "CREATING",
        Some(Transition::Updating) => "UPDATING",
        Some(Transition::Deleting) => "DELETING",
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = if error == Error::Internal { 500 } else { 400 };
        Failure { status, code: error.code(), message: error.message() }
    }
}

/// What a change of a stream comes to: the handler's refusal, or the catalogue's.
#[derive(Debug)]
pub enum Refused {
    Request(Error),
    Catalog(CatalogError),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Refused {
        Refused::Request(error)
    }
}

impl From<CatalogError> for Refused {
    fn from(error: CatalogError) -> Refused {
        Refused::Catalog(error)
    }
}

impl Refused {
    /// For the stream that was to be changed. What handlers have checked before cannot be wrong any more.
    pub fn into_error(self, home: &Home, stream: &str) -> Error {
        match self {
            Refused::Request(error) => error,
            Refused::Catalog(CatalogError::NotFound) => Error::stream_not_found(home, stream),
            Refused::Catalog(CatalogError::Exists(_)) => {
                Error::ResourceInUse(format!("Stream {stream} under account {} already exists.", home.account))
            }
            Refused::Catalog(CatalogError::Store(error)) => Error::internal(&error),
            Refused::Catalog(error @ (CatalogError::Lineage(_) | CatalogError::Setting(_))) => {
                tracing::error!(%error, stream, "a Kinesis request failed");
                Error::Internal
            }
        }
    }
}
