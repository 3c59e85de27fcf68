"""Order management: knows every order of this bot and is the only room that sends one."""
