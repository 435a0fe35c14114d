//! What guards make of calls that are no chats.
