"""Does an explanation say what the model goes by? The joints it names are damaged, and the scores are watched."""
