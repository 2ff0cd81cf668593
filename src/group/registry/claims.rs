//! Ids of groups that other modules keep: group ids are one name space, and a group has one type.
//!
//! A claim is not stored: who keeps the group claims its id anew when it loads it, after [`Groups::open`].

use super::{Groups, check_group_id_of_members};
use crate::group::kinds::Group;
use crate::group::{GroupError, GroupType};

impl Groups {
    /// Takes a free group id for a group that the caller keeps; again is no harm. GROUP_ID_NOT_FOUND if the id stands for
    /// a group of another type, be it one that only committed offsets, as Kafka words that there is no group of *this*
    /// type. Never waits, and may be called under the caller's own locks as long as those come before a group's.
    pub fn claim(&self, group_id: &str, group_type: GroupType) -> Result<(), GroupError> {
        check_group_id_of_members(group_id)?;
        self.find_or_create(group_id, |_, entry| match &entry.group {
            Group::Claimed(claimed) if *claimed == group_type => Ok(()),
            Group::Classic(group) if group.is_blank() && entry.offsets.is_empty() => {
                entry.group = Group::Claimed(group_type);
                Ok(())
            }
            Group::Classic(_) | Group::Consumer(_) | Group::Claimed(_) => Err(GroupError::GroupIdNotFound),
        })?
    }

    /// Frees an id that was [claimed](Groups::claim), once its group is gone for good.
    pub fn release(&self, group_id: &str, group_type: GroupType) {
        self.find(group_id, |shared, entry| {
            if matches!(&entry.group, Group::Claimed(claimed) if *claimed == group_type) {
                entry.group = Group::new(self.now());
                self.drop_if_blank(shared, entry);
            }
        });
    }

    /// The type of the group that holds this id, if one does.
    pub fn group_type(&self, group_id: &str) -> Option<GroupType> {
        self.find(group_id, |_, entry| entry.group.group_type())
    }
}
