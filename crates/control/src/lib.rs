//! Every operator action as one operation; served on the admin socket and run in process by the command line.
