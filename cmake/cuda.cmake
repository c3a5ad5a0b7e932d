# The CUDA toolkit, cuBLAS and cuDNN 9, and how a library with .cu files is compiled by nvcc.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 80 90)
endif()
set(CMAKE_CUDA_FLAGS_RELEASE "-O3")
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
# cuDNN, and cuBLAS where the toolkit lacks it, may come from pip's wheels: folders nvidia/cudnn, nvidia/cublas and
# nvidia/cu13 of site-packages, with libcudnn.so.9 alone. LANAS_WHEELS is that folder nvidia; CMake has no find module.
set(LANAS_WHEELS "$ENV{LANAS_WHEELS}" CACHE PATH "Folder nvidia of Python's site-packages, searched after the toolkit")
file(GLOB wheel_folders ${LANAS_WHEELS}/*)
set(cuda_places ${CUDAToolkit_LIBRARY_ROOT} ${CUDAToolkit_TARGET_DIR} $ENV{CUDNN_PATH} ${wheel_folders})
find_path(CUDNN_INCLUDE_DIR cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${cuda_places} PATH_SUFFIXES include REQUIRED)
find_library(CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 HINTS ${CUDAToolkit_LIBRARY_DIR} ${cuda_places}
  PATH_SUFFIXES lib lib64 REQUIRED)
find_path(CUBLAS_INCLUDE_DIR cublas_v2.h HINTS ${CUDAToolkit_INCLUDE_DIRS} ${cuda_places} PATH_SUFFIXES include REQUIRED)
find_library(CUBLAS_LIBRARY NAMES cublas libcublas.so.13 libcublas.so.12 HINTS ${CUDAToolkit_LIBRARY_DIR} ${cuda_places}
  PATH_SUFFIXES lib lib64 REQUIRED)
if(CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()

function(lanas_cuda_library name)
  # CMake 3.25 knows no C++20 for CUDA. Asked for 17, nvcc's default, it passes no flag, and the right one stands here.
  # --expt-relaxed-constexpr: kernels call constexpr members of views.
  set_target_properties(${name} PROPERTIES CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED OFF CUDA_EXTENSIONS ON)
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CUDA>:
    -std=c++20 --expt-relaxed-constexpr -Werror=all-warnings
    -Xcompiler=-fopenmp,-Wall,-Wextra,-Wno-psabi,-Wno-unknown-pragmas>)
  target_include_directories(${name} SYSTEM PRIVATE ${CUDNN_INCLUDE_DIR} ${CUBLAS_INCLUDE_DIR})
  target_link_libraries(${name} PRIVATE CUDA::cudart ${CUBLAS_LIBRARY} ${CUDNN_LIBRARY})
endfunction()
