fn main(){ println!("{}", tch::utils::version_cudnn()); }
