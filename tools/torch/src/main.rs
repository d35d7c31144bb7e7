//! Runs TorchScript models in libtorch for `mlconv --source-runtime torch`, which links no libtorch itself.
//!
//! What to run comes in on stdin and what came of it goes out on stdout, as `mlconv_arrays::talk` has it.

mod arguments;
mod model;

use arguments::{Arguments, Asked};
use mlconv_arrays::talk;
use model::Model;
use std::{
    fs::File,
    io::{self, Write},
    process::ExitCode,
};

fn main() -> ExitCode {
    let asked = Arguments::parse(std::env::args_os().skip(1));
    let said = match asked {
        Ok(Asked::Text(text)) => io::stdout().write_all(text.as_bytes()),
        Ok(Asked::Serve(arguments)) => serve(&arguments),
        Err(why) => Err(io::Error::other(why)),
    };
    match said {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // Where nobody reads that, nothing can be done about it.
            let _ = writeln!(io::stderr(), "mlconv-torch: {why}");
            ExitCode::from(2)
        }
    }
}

fn serve(arguments: &Arguments) -> io::Result<()> {
    let mut to = own_stdout()?;
    tch::set_num_threads(arguments.threads);
    // Each node computes what it says: what is fused rounds in other places.
    tch::jit::set_graph_executor_optimize(false);
    let _no_gradients = tch::no_grad_guard();
    talk::serve(&mut io::stdin().lock(), &mut to, || Model::open(&arguments.model), Model::run)
}

/// The pipe for answers. What a model prints to stdout, which `print` in TorchScript does, goes to stderr from here on.
#[cfg(unix)]
fn own_stdout() -> io::Result<File> {
    use std::os::fd::AsFd;
    let own = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    Ok(File::from(own))
}

/// The pipe for answers.
#[cfg(windows)]
fn own_stdout() -> io::Result<File> {
    use std::os::windows::io::AsHandle;
    Ok(File::from(io::stdout().as_handle().try_clone_to_owned()?))
}
