"""`antiphon engine-host`: runs engines on this machine for fronts on other machines."""
