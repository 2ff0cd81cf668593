//! What an administrator is told of access while there is none to administer: DescribeAcls (29), CreateAcls (30),
//! DeleteAcls (31), versions 1 to 3, as Kafka answers them without an authorizer; DescribeUserScramCredentials (50) and
//! AlterUserScramCredentials (51), version 0, the same way, for no listener authenticates anybody.

use indexmap::IndexSet;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::delete_acls_response::DeleteAclsFilterResult;
use kafka_protocol::messages::*;

use crate::kafka::{Context, names};

const DISABLED: i16 = ResponseError::SecurityDisabled.code();
const NO_AUTHORIZER: &str = "No Authorizer is configured on the broker";
const NO_AUTHENTICATION: &str = "No listener of the broker authenticates users";

pub async fn describe_acls(_cx: Context, _request: DescribeAclsRequest) -> DescribeAclsResponse {
    DescribeAclsResponse::default().with_error_code(DISABLED).with_error_message(names::message(NO_AUTHORIZER))
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
    _request: DescribeUserScramCredentialsRequest,
) -> DescribeUserScramCredentialsResponse {
    let message = names::message(NO_AUTHENTICATION);
    DescribeUserScramCredentialsResponse::default().with_error_code(DISABLED).with_error_message(message)
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
