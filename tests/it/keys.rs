//! The API Keys page, and what becomes of its keys.

use crate::support::*;

both! {
    fn a_key_works_until_it_is_deleted(app: App) {
        let owner = app.owner();
        let (id, key) = owner.create_key("Production server", "");
        let program = app.program(&key);
        assert_eq!(program.info().status, 200);

        let deleted = owner.post(&format!("/api-keys/{id}/delete"), &[]);
        assert_eq!((deleted.status, deleted.location()), (303, Some("/api-keys?notice=deleted")));

        assert_eq!(program.info().status, 403);
        assert!(owner.get("/api-keys").key_ids().is_empty());
    }
}
