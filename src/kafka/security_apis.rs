//! What an administrator is told of access while there is none to administer: DescribeAcls (29), CreateAcls (30),
//! DeleteAcls (31), versions 1 to 3, as Kafka answers them without an authorizer; AlterUserScramCredentials (51), version
//! 0, the same way, for no listener authenticates anybody. DescribeUserScramCredentials (50), version 0, tells that no user
//! has any, as Kafka does where that is so: `kafka-configs.sh --describe --entity-type users` asks it after it has shown
//! quotas, and ends with any error of it.

use indexmap::{IndexMap, IndexSet};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::describe_user_scram_credentials_response::DescribeUserScramCredentialsResult;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use crate::kafka::{Context, names};

const DISABLED: i16 = ResponseError::SecurityDisabled.code();
const NO_AUTHORIZER: &str = "No Authorizer is configured.";
const NO_AUTHENTICATION: &str = "No listener of the broker authenticates users";

pub async fn describe_acls(_cx: Context, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    let message = names::message("No Authorizer is configured on the broker");
    DescribeAclsResponse::default().with_error_code(DISABLED).with_error_message(message)
}

pub async fn create_acls(_cx: Context, request: CreateAclsRequest) -> CreateAclsResponse {
    let refused =
        AclCreationResult::default().with_error_code(DISABLED).with_error_message(names::message(NO_AUTHORIZER));
    CreateAclsResponse::default().with_results(vec![refused; request.creations.len()])
}

pub async fn delete_acls(_cx: Context, request: DeleteAclsRequest) -> DeleteAclsResponse {
    let refused =
        DeleteAclsFilterResult::default().with_error_code(DISABLED).with_error_message(names::message(NO_AUTHORIZER));
    DeleteAclsResponse::default().with_filter_results(vec![refused; request.filters.len()])
}

pub async fn describe_user_scram_credentials(
    _cx: Context,
    request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let mut times: IndexMap<StrBytes, usize> = IndexMap::new();
    request.users.into_iter().flatten().for_each(|user| *times.entry(user.name).or_default() += 1);
    let missing = |(user, times): (StrBytes, usize)| {
        let (error, message) = match times {
            1 => (ResponseError::ResourceNotFound, "Attempt to describe a user credential that does not exist"),
            _ => (
                ResponseError::DuplicateResource,
                "Cannot describe SCRAM credentials for the same user twice in a single request",
            ),
        };
        let message = names::message(format!("{message}: {user}"));
        DescribeUserScramCredentialsResult::default()
            .with_user(user)
            .with_error_code(error.code())
            .with_error_message(message)
    };
    DescribeUserScramCredentialsResponse::default()
        .with_error_message(None)
        .with_results(times.into_iter().map(missing).collect())
}

pub async fn alter_user_scram_credentials(
    _cx: Context,
    request: AlterUserScramCredentialsRequest,
) -> AlterUserScramCredentialsResponse {
    let deleted = request.deletions.into_iter().map(|deletion| deletion.name);
    let users: IndexSet<_> = deleted.chain(request.upsertions.into_iter().map(|upsertion| upsertion.name)).collect();
    let refused = |user| {
        let message = names::message(NO_AUTHENTICATION);
        AlterUserScramCredentialsResult::default().with_user(user).with_error_code(DISABLED).with_error_message(message)
    };
    AlterUserScramCredentialsResponse::default().with_results(users.into_iter().map(refused).collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::alter_user_scram_credentials_request::ScramCredentialDeletion;
    use kafka_protocol::messages::create_acls_request::AclCreation;
    use kafka_protocol::messages::describe_user_scram_credentials_request::UserName;

    use super::*;
    use crate::kafka::tests::fixture::{Fixture, encodes};

    #[tokio::test]
    async fn every_entry_is_told_that_there_is_no_security() {
        let fixture = Fixture::new();
        let request = CreateAclsRequest::default().with_creations(vec![AclCreation::default(); 3]);
        let created = encodes(create_acls(fixture.cx(3), request).await, 3);
        assert_eq!(created.results.iter().map(|result| result.error_code).collect::<Vec<_>>(), [DISABLED; 3]);
        let user = |name| ScramCredentialDeletion::default().with_name(StrBytes::from_static_str(name));
        let request = AlterUserScramCredentialsRequest::default().with_deletions(vec![user("a"), user("b"), user("a")]);
        let altered = encodes(alter_user_scram_credentials(fixture.cx(0), request).await, 0);
        assert_eq!(altered.results.iter().map(|result| result.error_code).collect::<Vec<_>>(), [DISABLED; 2]);
    }

    #[tokio::test]
    async fn nobody_has_credentials() {
        let fixture = Fixture::new();
        let all = DescribeUserScramCredentialsRequest::default().with_users(None);
        let told = encodes(describe_user_scram_credentials(fixture.cx(0), all).await, 0);
        assert_eq!((told.error_code, told.results.len()), (0, 0));
        let user = |name| UserName::default().with_name(StrBytes::from_static_str(name));
        let some = DescribeUserScramCredentialsRequest::default();
        let some = some.with_users(Some(vec![user("a"), user("b"), user("a")]));
        let told = encodes(describe_user_scram_credentials(fixture.cx(0), some).await, 0);
        let errors: Vec<_> = told.results.iter().map(|result| result.error_code).collect();
        assert_eq!(errors, [ResponseError::DuplicateResource.code(), ResponseError::ResourceNotFound.code()]);
    }
}
