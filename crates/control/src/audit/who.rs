//! Who a user of the system is.

use std::fs;

use postrider_account::UserIdentity;

/// Where the system's own users are. Those of a directory service have a number alone.
const PASSWD: &str = "/etc/passwd";

/// The user of this number, with the name that the system's list of users has for it.
#[must_use]
pub fn user(uid: u32, pid: Option<i32>) -> UserIdentity {
    let known = fs::read_to_string(PASSWD).ok();
    let name = known.as_deref().and_then(|known| name_in(known, uid));
    UserIdentity::user(uid, name, pid)
}

/// A line is `name:password:uid:...`.
fn name_in(passwd: &str, uid: u32) -> Option<String> {
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    };
    passwd.lines().find_map(of_line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_number() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbroken\nalice:x:1000:1000::/home/alice:/bin/sh\n";
        assert_eq!(name_in(passwd, 1000).as_deref(), Some("alice"));
        assert_eq!(name_in(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_in(passwd, 7), None);
    }
}
