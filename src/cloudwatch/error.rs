//! CloudWatch's errors: names and texts. Rendered by `protocol`, which knows how each protocol tells them.
//!
//! Source: the service model (codes, shapes), answers of AWS (texts).

use crate::http::Failure;
use crate::security::AuthError;
use crate::store::StoreError;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    InvalidParameterValue(String),
    MissingParameter(String),
    InvalidParameterCombination(String),
    /// What GetMetricData says of its queries.
    Validation(String),
    InvalidNextToken,
    LimitExceeded(String),
    /// The body is not what the operation takes.
    Malformed(String),
    UnknownOperation(String),
    TooLarge,
    Auth(AuthError),
    /// The cause is in the log.
    Internal,
}

impl Error {
    pub fn invalid(text: impl Into<String>) -> Error {
        Error::InvalidParameterValue(text.into())
    }

    pub fn required(parameter: &str) -> Error {
        Error::MissingParameter(format!("The parameter {parameter} is required."))
    }

    pub fn internal(error: &StoreError) -> Error {
        tracing::error!(%error, "metrics cannot be kept or read");
        Error::Internal
    }

    pub fn status(&self) -> u16 {
        match self {
            Error::Internal => 500,
            Error::TooLarge => 413,
            Error::Auth(AuthError::Incomplete(_)) => 400,
            Error::Auth(AuthError::Missing | AuthError::UnknownKey | AuthError::Invalid(_)) => 403,
            Error::InvalidParameterValue(_)
            | Error::MissingParameter(_)
            | Error::InvalidParameterCombination(_)
            | Error::Validation(_)
            | Error::InvalidNextToken
            | Error::LimitExceeded(_)
            | Error::Malformed(_)
            | Error::UnknownOperation(_) => 400,
        }
    }

    /// As the query protocol has it, and `x-amzn-query-error`.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InvalidParameterValue(_) => "InvalidParameterValue",
            Error::MissingParameter(_) => "MissingParameter",
            Error::InvalidParameterCombination(_) => "InvalidParameterCombination",
            Error::Validation(_) => "ValidationError",
            Error::InvalidNextToken => "InvalidNextToken",
            Error::LimitExceeded(_) => "LimitExceeded",
            Error::Malformed(_) => "MalformedInput",
            Error::UnknownOperation(_) => "InvalidAction",
            Error::TooLarge => "RequestEntityTooLarge",
            Error::Auth(AuthError::Missing) => "MissingAuthenticationToken",
            Error::Auth(AuthError::UnknownKey) => "InvalidClientTokenId",
            Error::Auth(AuthError::Incomplete(_)) => "IncompleteSignature",
            Error::Auth(AuthError::Invalid(_)) => "SignatureDoesNotMatch",
            Error::Internal => "InternalServiceError",
        }
    }

    /// The shape's name, as JSON and CBOR have it.
    pub fn shape(&self) -> &'static str {
        match self {
            Error::InvalidParameterValue(_) => "InvalidParameterValueException",
            Error::MissingParameter(_) => "MissingRequiredParameterException",
            Error::InvalidParameterCombination(_) => "InvalidParameterCombinationException",
            Error::Validation(_) => "ValidationError",
            Error::InvalidNextToken => "InvalidNextToken",
            Error::LimitExceeded(_) => "LimitExceededFault",
            Error::Malformed(_) => "SerializationException",
            Error::UnknownOperation(_) => "UnknownOperationException",
            Error::TooLarge => "RequestEntityTooLargeException",
            Error::Auth(AuthError::Missing) => "MissingAuthenticationTokenException",
            Error::Auth(AuthError::UnknownKey) => "UnrecognizedClientException",
            Error::Auth(AuthError::Incomplete(_)) => "IncompleteSignatureException",
            Error::Auth(AuthError::Invalid(_)) => "InvalidSignatureException",
            Error::Internal => "InternalServiceFault",
        }
    }

    pub fn message(&self) -> String {
        match self {
            Error::InvalidParameterValue(text)
            | Error::MissingParameter(text)
            | Error::InvalidParameterCombination(text)
            | Error::Validation(text)
            | Error::LimitExceeded(text)
            | Error::Malformed(text) => text.clone(),
            Error::InvalidNextToken => "The value for parameter NextToken is invalid.".to_owned(),
            Error::UnknownOperation(operation) => {
                format!("Could not find operation {operation} for version {}", super::VERSION)
            }
            Error::TooLarge => "The request is larger than it may be.".to_owned(),
            Error::Auth(error) => error.to_string(),
            Error::Internal => "The request has failed because of an internal error of the server.".to_owned(),
        }
    }
}

impl From<Failure> for Error {
    /// Of a body that could not be decoded.
    fn from(failure: Failure) -> Error {
        Error::Malformed(failure.message.unwrap_or_else(|| "The request's body cannot be read.".to_owned()))
    }
}
